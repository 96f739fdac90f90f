"""Exit with 1 where a package of this environment is not whole, as after a kill while it was being written."""

from __future__ import annotations

import importlib.metadata
import sys


def broken() -> str | None:
    """The first package with a file that is missing or cut short; None where all are whole."""
    for package in importlib.metadata.distributions():
        name = package.metadata["Name"]
        if name is None:
            return str(package.locate_file(""))
        if package.files is None:
            return f"{name} (no record of its files)"
        for file in package.files:
            try:
                size = file.locate().stat().st_size
            except OSError:
                if file.suffix == ".pyc":
                    continue
                return f"{name} ({file} is missing)"
            # Two packages bring FiftyOne's database, the later one over the earlier one.
            if file.size is not None and size < file.size and not name.startswith("fiftyone"):
                return f"{name} ({file} is cut short)"
    return None


sys.exit(broken())
