"""One folder per data set: its paths, and the only ways in which its files are written.

Files are written under a temporary name in the same folder, synced and renamed. Logs are appended under a short
lock, whole lines at a time, and a torn last line is set aside when it is read. One stage at a time holds the stage
lock, which the operating system frees when its owner dies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from curate.config import CLASS_NAME, Spec, read_spec
from curate.errors import DataCorrupt, DatasetNotFound, EnvironmentMissing, InputError, LockHeld, StageNotReady
from curate.schema import TABLES, validate

TEMPORARY = ".tmp-"
"""Prefix of files that are being written; what a crash leaves behind is swept at the next stage."""

_OURS = re.compile(rf"{re.escape(TEMPORARY)}(?:\d+-(?:\d+|link)|[a-z0-9_]{{8}}(?:\.\w+)?)")


def now() -> str:
    """The time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def canonical(value: Any) -> bytes:
    """JSON in one fixed form, for digests and logs: UTF-8, sorted keys, no spaces."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(*values: Any) -> str:
    """SHA-256 (hex) over the canonical form of `values`."""
    return hashlib.sha256(canonical(values)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While a file is written: a full disk or a forbidden folder is told as what it is.

    Raises:
        EnvironmentMissing: `path` may not be written, or the disk is full.
    """
    try:
        yield
    except PermissionError as error:
        msg = f"{error.filename or path} cannot be written: permission denied. Choose a folder that is yours."
        raise EnvironmentMissing(msg) from error
    except OSError as error:
        # Full disk, quota, read-only; or a folder on the way to the file that is none and cannot be made.
        on_the_way = (
            isinstance(error.filename, str) and Path(error.filename) in path.parents and not path.parent.is_dir()
        )
        if on_the_way or error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            msg = f"{path} cannot be written: {error.strerror}. Nothing was lost; make room and run again."
            raise EnvironmentMissing(msg) from error
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; what was written there replaces `path`, synced, or vanishes.

    Raises:
        EnvironmentMissing: the folder may not be written, or the disk is full.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n")


@dataclass(frozen=True, kw_only=True)
class LogRead:
    """The records of a log, and the lines that are none (torn by a crash, or broken by hand)."""

    records: list[dict[str, Any]]
    torn: list[str] = field(default_factory=list)


def append_log(path: Path, records: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Append each record as one JSON line, with one sync for all, under a short lock.

    A torn last line that a crash left is closed first, so that it cannot swallow what follows. Without `sync` the lines
    survive the end of this process, but not that of the machine: enough for what can be computed again.
    """
    data = b"".join(canonical(dict(record)) + b"\n" for record in records)
    if not data:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")), path.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    data = b"\n" + data
            stream.write(data)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())


def read_log(path: Path) -> LogRead:
    """Read a log; lines that are no JSON object are set aside in `torn`, never fatal."""
    if not path.exists():
        return LogRead(records=[])
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    with contextlib.suppress(ValueError):  # all at once takes a fraction of the time of one by one
        whole = json.loads(b"[" + b",".join(lines) + b"]")
        if len(whole) == len(lines) and all(isinstance(record, dict) for record in whole):
            return LogRead(records=whole)
    records: list[dict[str, Any]] = []
    torn: list[str] = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            torn.append(line.decode(errors="replace"))
    return LogRead(records=records, torn=torn)


def parent_folder() -> Path:
    """The folder that holds `datasets/` and `reports/`: $CURATE_HOME, else the working folder."""
    return Path(os.environ.get("CURATE_HOME") or Path.cwd())


@dataclass(frozen=True)
class Workspace:
    """The folder of one data set."""

    root: Path

    @classmethod
    def find(cls, name_or_path: str | Path) -> Workspace:
        """The data set of that name under `datasets/`, or at that path.

        Raises:
            DatasetNotFound: there is none; those that exist are named.
        """
        given = str(name_or_path)
        home = parent_folder()
        if CLASS_NAME.fullmatch(given):
            root = home / "datasets" / given
            if (root / "curate.toml").is_file():
                return cls(root)
        if (Path(given) / "curate.toml").is_file():
            return cls(Path(given))
        known = sorted(p.parent.name for p in (home / "datasets").glob("*/curate.toml"))
        there = f"there are: {', '.join(known)}" if known else "there is none yet"
        msg = (
            f"no data set {given!r} under {home / 'datasets'} ({there}). "
            "Make one with `curate new NAME --class LABEL=QUERY` or `curate import NAME SOURCE`."
        )
        raise DatasetNotFound(msg)

    @classmethod
    def create(cls, name: str, spec_text: str) -> Workspace:
        """Make the folder of a new data set with its `curate.toml`.

        Raises:
            InputError: the name is no folder name, or is taken.
        """
        if not CLASS_NAME.fullmatch(name):
            msg = f"{name!r} cannot name a data set: use letters, digits, space, . _ + -"
            raise InputError(msg)
        root = parent_folder() / "datasets" / name
        if (root / "curate.toml").exists():
            msg = f"data set {name!r} exists already at {root}. Choose another name, or edit its curate.toml."
            raise InputError(msg)
        write_bytes(root / "curate.toml", spec_text.encode())
        return cls(root)

    @property
    def name(self) -> str:
        """The data set's name: that of its folder."""
        return self.root.resolve().name

    @property
    def spec_path(self) -> Path:
        """`curate.toml`."""
        return self.root / "curate.toml"

    @property
    def sources(self) -> Path:
        """The log of attempts to obtain images."""
        return self.root / "sources.jsonl"

    @property
    def decisions(self) -> Path:
        """The log of decisions."""
        return self.root / "decisions.jsonl"

    @property
    def exports(self) -> Path:
        """The log of exports."""
        return self.root / "exports.jsonl"

    @property
    def tables(self) -> Path:
        """The folder of derived tables."""
        return self.root / "tables"

    @property
    def models(self) -> Path:
        """The folder of trained models, one folder a run."""
        return self.root / "models"

    @property
    def cache(self) -> Path:
        """The folder of what can be thrown away at any time."""
        return self.root / "cache"

    @property
    def reports(self) -> Path:
        """The folder of reports: `reports/NAME` beside `datasets/`, else `report` inside."""
        root = self.root.resolve()
        return root.parent.parent / "reports" / root.name if root.parent.name == "datasets" else root / "report"

    def spec(self) -> Spec:
        """Read `curate.toml`; raises `SpecError`."""
        return read_spec(self.spec_path)

    def image(self, path: str) -> Path:
        """The file of a manifest path."""
        return self.root / path

    def table_path(self, name: str) -> Path:
        """The Parquet file of the table `name`."""
        return self.tables / f"{name}.parquet"

    def has_table(self, name: str) -> bool:
        """Whether the table was made."""
        return self.table_path(name).is_file()

    def read_table(self, name: str) -> pl.DataFrame:
        """Read a derived table.

        Raises:
            StageNotReady: it was not made yet.
            DataCorrupt: the file cannot be read; it can be rebuilt.
        """
        path = self.table_path(name)
        if not path.is_file():
            stage = {"manifest": "scrape or import", "features": "measure", "groups": "dedupe"}.get(name, "audit")
            msg = f"data set {self.name!r} has no table {name!r} yet: run `curate {stage}` for it first."
            raise StageNotReady(msg)
        try:
            return pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            msg = f"{path} cannot be read ({error}). Delete it and run the stage again: nothing else is lost."
            raise DataCorrupt(msg) from error

    def table_version(self, name: str) -> int | None:
        """The version that `write_table` noted in the file; None where there is no such table, or it has none."""
        with contextlib.suppress(OSError, KeyError, ValueError, pl.exceptions.PolarsError):
            return int(pl.read_parquet_metadata(self.table_path(name))["curate_version"])
        return None

    def write_table(self, name: str, table: pl.DataFrame, *, version: int = 0) -> None:
        """Check `table` against its schema and write it, whole or not at all, with the version of what made it."""
        if name in TABLES:
            table = validate(table, TABLES[name])
        with replacing(self.table_path(name)) as temporary:
            noted = {"curate_version": str(version)} if version else None
            table.write_parquet(temporary, compression="zstd", statistics=False, metadata=noted)

    def sweep(self) -> None:
        """Remove temporary files that a crash left behind. Only under the stage lock."""
        flat = (self.root, self.tables, *self.root.glob("images/*/*"))
        deep = (self.cache, self.models, self.reports)
        found = [leftover for folder in flat for leftover in folder.glob(f"{TEMPORARY}*")]
        found += [leftover for folder in deep for leftover in folder.glob(f"**/{TEMPORARY}*")]
        # Deep among images lie files as their owner called them: there a name has to look like one of ours.
        images = (self.root / "images").glob(f"*/*/**/{TEMPORARY}*")
        found += [leftover for leftover in images if _OURS.fullmatch(leftover.name)]
        for leftover in found:
            leftover.unlink(missing_ok=True)

    @contextlib.contextmanager
    def stage_lock(self, stage: str) -> Iterator[None]:
        """Hold the data set for one stage; the lock is freed by the system when its owner dies.

        Raises:
            LockHeld: another process works on the data set; its process, host and stage are named.
        """
        owner = self.root / ".stage.owner"
        with writing(self.root):
            lock = FileLock(self.root / ".stage.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout as error:
                told = owner.read_text(encoding="utf-8", errors="replace").strip() if owner.exists() else "unknown"
                msg = f"another process works on data set {self.name!r}: {told}. Wait for it, or stop it."
                raise LockHeld(msg) from error
        try:
            with writing(owner):
                owner.write_text(f"{stage}, process {os.getpid()} on {socket.gethostname()}, since {now()}\n")
            self.sweep()
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()
