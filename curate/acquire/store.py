"""How files get into images/: staged first, synced in company, then put in place by one rename; links likewise."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable
from pathlib import Path

from curate.errors import DataCorrupt
from curate.workspace import TEMPORARY, Workspace, file_digest, writing

NAME_LENGTHS = (16, 32, 64)
"""Hex digits of the SHA-256 in a file name: the first, unless other bytes have that name already."""


def scraped_folder(workspace: Workspace, label: str) -> Path:
    """Where the scraped files of a class lie."""
    return workspace.root / "images" / "scraped" / label


def stage(folder: Path, number: int, body: bytes) -> Path:
    """Write `body` to a temporary file in `folder`, to be synced later together with others.

    What is never put in place is swept at the next stage.

    Raises:
        EnvironmentMissing: the folder may not be written, or the disk is full.
    """
    staged = folder / f"{TEMPORARY}{os.getpid()}-{number}"
    with writing(staged):
        try:
            staged.write_bytes(body)
        except FileNotFoundError:  # the first of its folder
            folder.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(body)
    return staged


def sync_file(file: Path) -> None:
    """Make the content of a file last."""
    with writing(file), file.open("rb") as stream:
        os.fsync(stream.fileno())


def free_path(workspace: Workspace, label: str, sha256: str, extension: str) -> str:
    """The manifest path for new bytes: named by their digest, longer where other bytes have taken the short name."""
    for length in NAME_LENGTHS:
        path = f"images/scraped/{label}/{sha256[:length]}{extension}"
        file = workspace.image(path)
        if not file.exists() or file_digest(file) == sha256:
            return path
    msg = f"{file} does not hold what its name says. Move it away and run again."
    raise DataCorrupt(msg)


def put_in_place(staged: Path, target: Path) -> None:
    """Rename a staged file to `target`; what is there is the same bytes, or is damaged."""
    staged.replace(target)


def set_aside(workspace: Workspace, listed: Container[str]) -> list[str]:
    """Move scraped files that no line tells of, and that are ours by their name, into `cache/unlisted`.

    A kill between the rename of a file and its line leaves such ones; the address is asked for again. Only under the
    stage lock.

    Returns:
        Their paths.
    """
    found = []
    for file in sorted((workspace.root / "images" / "scraped").rglob("*")):
        path = file.relative_to(workspace.root).as_posix()
        if path in listed or len(file.stem) not in NAME_LENGTHS or not file.is_file() or file.is_symlink():
            continue
        if file_digest(file).startswith(file.stem):
            aside = workspace.cache / "unlisted" / file.name
            aside.parent.mkdir(parents=True, exist_ok=True)
            file.replace(aside)
            found.append(path)
    return found


def link(target: Path, link_at: Path) -> None:
    """Make a symbolic link, whole or not at all; an older link or file there is replaced."""
    link_at.parent.mkdir(parents=True, exist_ok=True)
    temporary = link_at.with_name(f"{TEMPORARY}{os.getpid()}-link")
    temporary.unlink(missing_ok=True)
    with contextlib.ExitStack() as undo:
        undo.callback(temporary.unlink, missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link_at)


def sync_folders(folders: Iterable[Path]) -> None:
    """Make renames in these folders last."""
    for folder in set(folders):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
