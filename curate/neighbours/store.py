"""What was read of pictures once, kept in the cache by the SHA-256 of their bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.runner import Runner
from curate.workspace import digest, replacing

Columns = Mapping[str, NDArray[Any]]
"""Arrays of one length; `digest` holds the SHA-256 of each picture."""

Job = tuple[str, str]
"""SHA-256, file."""

_BATCH = 128
_FILE = 2048
"""Pictures per file: so many are lost at most when a run is cut short."""


def read_once(
    read: Callable[[Sequence[Job]], Columns], jobs: Sequence[Job], *, runner: Runner, folder: Path | None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """What `read` says of pictures; only those that the folder lacks are read.

    Args:
        read: reads pictures and leaves out those that cannot be read; importable by name.
        jobs: pictures, each digest once.
        runner: where they are read.
        folder: keeps what was read; None keeps nothing. Another `read`, or another version of it, needs another.
        progress: called with (read, to be read).

    Returns:
        The columns of `read`, in the order of `jobs`.
    """
    parts = [read([]), *(_kept(folder) if folder else ())]
    known = {sha for part in parts for sha in part["digest"].tolist()}
    todo = [job for job in jobs if job[0] not in known]
    waiting: list[Columns] = []
    for done, part in enumerate(runner.map_batches(read, todo, size=_BATCH), start=1):
        parts.append(part)
        waiting.append(part)
        progress(min(done * _BATCH, len(todo)), len(todo))
        if len(waiting) * _BATCH >= _FILE or done * _BATCH >= len(todo):
            if folder:
                _keep(folder, _joined(waiting))
            waiting = []
    seen = _joined(parts)
    row_of = {sha: row for row, sha in enumerate(seen["digest"].tolist())}
    rows = np.array([row_of[sha] for sha, _ in jobs if sha in row_of], dtype=np.int64)
    return {name: column[rows] for name, column in seen.items()}


def _joined(parts: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _keep(folder: Path, part: Columns) -> None:
    if len(part["digest"]):
        with replacing(folder / f"{digest(part['digest'].tolist())[:16]}.npz") as temporary:
            np.savez(temporary, allow_pickle=False, **part)


def _kept(folder: Path) -> Iterator[Columns]:
    for file in sorted(folder.glob("[!.]*.npz")):
        try:
            with file.open("rb") as stream, np.load(stream) as arrays:
                yield {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # it is made anew
            file.unlink(missing_ok=True)


def digests(shas: Iterable[str]) -> NDArray[np.str_]:
    """The column `digest`."""
    return np.array(list(shas), dtype="U64")
