"""Reading a table that lists images: its columns found, its paths judged."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from curate.errors import InputError

IMAGE_COLUMNS = ("image", "path", "file", "filename", "image_path")
LABEL_COLUMNS = ("label", "class", "target")
SPLIT_COLUMNS = ("split", "subset")


def read_table(table: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a CSV or TSV file, and its columns.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        msg = f"{table} cannot be read as CSV: {reason}. Give a UTF-8 file with a header."
        raise InputError(msg) from error
    return rows, columns


def column(
    table: Path, columns: list[str], given: str | None, usual: Iterable[str], what: str, *, needed: bool = False
) -> str | None:
    """The column that was asked for, else the first of the usual names that is there, else None.

    Raises:
        InputError: the column asked for is not there, or none that is needed.
    """
    if given is not None:
        if given in columns:
            return given
        msg = f"{table} has no column {given!r}; it has: {', '.join(columns)}. Mend `--{what}-column`."
        raise InputError(msg)
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    found = next((by_name[name] for name in usual if name in by_name), None)
    if found is None and needed:
        there = f"has no {what} column ({', '.join(usual)}); it has: {', '.join(columns)}"
        msg = f"{table} {there}. Name it: `--{what}-column`."
        raise InputError(msg)
    return found


def safe_path(value: str, where: str) -> str:
    """The relative path that a table gives, in one form; `where` names the place in error messages.

    Raises:
        InputError: the path is empty, absolute, or leads out of the folder.
    """
    value = value.strip()
    windows = PureWindowsPath(value)
    problem = None
    if not value or "\0" in value:
        problem = "names no file"
    elif PurePosixPath(value).is_absolute() or windows.drive or windows.root:
        problem = "is absolute: give `--root`, and paths relative to it"
    elif ".." in windows.parts:
        problem = "leads out of the folder: `..` is not allowed"
    if problem:
        msg = f"{where}: image path {value!r} {problem}."
        raise InputError(msg)
    return PurePosixPath(value).as_posix()
