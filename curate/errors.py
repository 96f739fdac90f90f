"""Every error that curate raises on purpose.

    CurateError
    ├── InputError            what the user gave is wrong (command line: exit code 2)
    │   ├── SpecError         curate.toml: names the file, the key and the line
    │   ├── DatasetNotFound   no data set of that name
    │   ├── StageNotReady     a stage was asked for before the one it needs
    │   ├── TableError        a table does not fit its schema
    │   └── LockHeld          another process works on this data set
    ├── ImageFailure          an image cannot be used (in images.py; becomes a row or a line, seldom reaches you)
    ├── EnvironmentMissing    a program, package or port is missing (exit code 3)
    └── DataCorrupt           a file of the data set is not what was written (exit code 2)

A message says what was wrong with which input, and what to do about it.
"""

from __future__ import annotations


class CurateError(Exception):
    """Base of every error that curate raises on purpose."""

    exit_code = 2


class InputError(CurateError):
    """What the user gave is wrong."""


class SpecError(InputError):
    """`curate.toml` cannot be read or holds a wrong value."""


class DatasetNotFound(InputError):
    """There is no data set of that name."""


class StageNotReady(InputError):
    """A stage was asked for before the stage that it needs."""


class TableError(InputError):
    """A table does not fit its schema."""


class LockHeld(InputError):
    """Another process works on this data set."""


class EnvironmentMissing(CurateError):
    """A program, a package, a port or a permission is missing from the environment."""

    exit_code = 3


class DataCorrupt(CurateError):
    """A file of the data set is not what was written to it."""
