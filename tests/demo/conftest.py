from __future__ import annotations

import os
import runpy
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.demo.server import HOST, PORTS

SMALL = Path(__file__).with_name("small.py")


def _free_ports() -> int:
    for first in range(32011, 60000, 11):
        sockets = []
        try:
            for port in range(first, first + PORTS):
                sockets.append(socket.socket())
                sockets[-1].bind((HOST, port))
        except OSError:
            continue
        else:
            return first
        finally:
            for sock in sockets:
                sock.close()
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """The names of small.py."""
    return runpy.run_path(str(SMALL))


@pytest.fixture
def demo_port(monkeypatch: pytest.MonkeyPatch) -> int:
    port = _free_ports()
    monkeypatch.setenv("CURATE_DEMO_PORT", str(port))
    return port


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory, small: dict[str, Any]) -> Path:
    """A home in which the small sample went through the whole loop; not to be changed."""
    home = tmp_path_factory.mktemp("small")
    before = {name: os.environ.get(name) for name in ("CURATE_HOME", "CURATE_DEMO_PORT")}
    os.environ |= {"CURATE_HOME": str(home), "CURATE_DEMO_PORT": str(_free_ports())}
    try:
        small["run"]()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    return home


@pytest.fixture
def demo_home(small_home: Path, home: Path, demo_port: int) -> Path:
    """A copy of it that may be changed; the home of this test."""
    shutil.rmtree(home)
    shutil.copytree(small_home, home, symlinks=True)
    return home


@pytest.fixture
def tree_of() -> Callable[[Path], dict[str, bytes]]:
    """What lies in a folder: every file's bytes, by its path."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return read
