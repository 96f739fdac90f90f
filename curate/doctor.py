"""What `curate doctor` looks at: whether everything that curate needs is here, and how to get what is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from curate.errors import EnvironmentMissing
from curate.review.database import HOW_TO_GET_ONE, database_uri, mongod_version
from curate.workspace import parent_folder

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ROOM = 2_000_000_000
"""Bytes that a small data set with its models and reports takes, generously."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        ok: whether it is as it should be.
        required: whether curate cannot do its work without it.
        found: what was found, in words.
        remedy: what to do where it is not ok; else empty.
    """

    name: str
    ok: bool
    required: bool
    found: str
    remedy: str = ""


def checks() -> list[Check]:
    """Look at everything; never raises, whatever is broken. Takes some seconds, most of it to import torch."""
    return [look() for look in (_python, _packages, _torch, _torchvision, _database, _browser, _disk, _home)]


def _python() -> Check:
    found = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Check(name="Python", ok=ok, required=True, found=found, remedy="" if ok else "Install Python 3.11 or newer.")


def _packages() -> Check:
    """Every package that curate's metadata asks for, without its extras, at a version that it accepts."""
    try:
        requirements = [Requirement(line) for line in importlib.metadata.requires("curate") or []]
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name="packages", ok=False, required=True, found="curate itself is not installed",
            remedy="Run `make setup`, or `pip install -e .`.",
        )  # fmt: skip
    wanted = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement} is wanted, {version} is there")
    return Check(
        name="packages", ok=not wrong, required=True, found="; ".join(wrong) or f"all {len(wanted)} there",
        remedy="Run `make setup`, or `pip install -c constraints.txt -e .`." if wrong else "",
    )  # fmt: skip


def _tried(name: str, action: Callable[[], str], remedy: str) -> Check:
    """A check that succeeds where `action` does; whatever a broken installation raises is told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = action()
    except Exception as error:  # noqa: BLE001 # a half-installed library raises anything
        first = (str(error).splitlines() or [""])[0]
        return Check(name=name, ok=False, required=True, found=f"{type(error).__name__}: {first}", remedy=remedy)
    return Check(name=name, ok=True, required=True, found=found)


def _torch() -> Check:
    def action() -> str:
        torch = importlib.import_module("torch")
        cuda = torch.cuda
        where = cuda.get_device_name(0) if cuda.is_available() else "no GPU, so models run on the CPU"
        return f"{torch.__version__}, {where}"

    return _tried("torch", action, "Run `make setup`: it installs the versions that were tested together.")


def _torchvision() -> Check:
    def action() -> str:
        torch, vision = importlib.import_module("torch"), importlib.import_module("torchvision")
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
        kept = vision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
        return f"{vision.__version__}, its operators run" if kept.tolist() == [0] else "its operators are wrong"

    remedy = "torchvision must match torch: run `pip install -c constraints.txt torch torchvision`."
    return _tried("torchvision", action, remedy)


def _database() -> Check:
    name = "MongoDB (for review)"
    uri = database_uri()
    if uri is None:
        try:
            return Check(name=name, ok=True, required=False, found=f"{mongod_version()}, which comes with FiftyOne")
        except EnvironmentMissing as error:
            return Check(name=name, ok=False, required=False, found=str(error).split(". ")[0], remedy=HOW_TO_GET_ONE)
    try:
        pymongo = importlib.import_module("pymongo")
        with pymongo.MongoClient(uri, serverSelectionTimeoutMS=3000) as client:
            version = client.server_info()["version"]
    except Exception as error:  # noqa: BLE001 # the driver's own tree, or a missing driver
        return Check(
            name=name, ok=False, required=False,
            found=f"FIFTYONE_DATABASE_URI is set, and no server answers there ({type(error).__name__})",
            remedy="Start that server, correct the address, or unset it to use the MongoDB that comes with FiftyOne.",
        )  # fmt: skip
    return Check(name=name, ok=True, required=False, found=f"{version}, at FIFTYONE_DATABASE_URI")


def _browser() -> Check:
    name = "Chromium (for tests)"
    for program in BROWSERS:
        path = shutil.which(program)
        if path is None:
            continue
        try:
            told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return Check(name=name, ok=True, required=False, found=told.stdout.strip() or path)
    return Check(
        name=name, ok=False, required=False, found="none",
        remedy="Only the browser tests need it: `apt-get install chromium`, or CURATE_SKIP_BROWSER=1 skips them.",
    )  # fmt: skip


def _existing(folder: Path) -> Path:
    return next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())


def _disk() -> Check:
    home = _existing(parent_folder())
    free = shutil.disk_usage(home).free
    ok = free >= ROOM
    return Check(
        name="disk space", ok=ok, required=True, found=f"{free / 1e9:.1f} GB free at {home}",
        remedy="" if ok else f"Make room ({ROOM / 1e9:.0f} GB), or set CURATE_HOME to a folder on another disk.",
    )  # fmt: skip


def _home() -> Check:
    home = parent_folder().absolute()
    try:
        # Being root, or a mount that is read-only, makes permission bits lie: so write.
        with tempfile.NamedTemporaryFile(dir=_existing(home)):
            pass
    except OSError as error:
        return Check(
            name="folder for data sets", ok=False, required=True, found=f"{home}: {os.strerror(error.errno or 0)}",
            remedy="Change to a folder that is yours, or set CURATE_HOME to one.",
        )  # fmt: skip
    return Check(name="folder for data sets", ok=True, required=True, found=str(home))
