"""`curate doctor`: what it says of this machine, and of machines that lack something."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from curate import doctor
from curate.review import database


def test_this_machine_has_what_is_required():
    found = doctor.checks()
    assert [c for c in found if c.required and not c.ok] == []
    assert len({c.name for c in found}) == len(found)
    assert all(bool(c.remedy) is not c.ok for c in found)


def test_a_package_that_is_missing_or_too_old_is_named(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["numpy>=999", "no-such-package>=1", 'ray>=2; extra == "ray"']
    )
    check = doctor._packages()
    assert not check.ok
    assert check.required
    assert check.found == f"numpy>=999 is wanted, {real('numpy')} is there; no-such-package>=1 is missing"


def test_the_pinned_packages_install_on_the_oldest_python_that_is_supported():
    for distribution in importlib.metadata.distributions():
        wants = distribution.metadata.get("Requires-Python")
        # A pin that wants 3.11.5 cannot be installed with the 3.11.2 of Debian 12.
        assert not wants or "3.11.0" in SpecifierSet(wants), f"{distribution.metadata['Name']} wants Python {wants}"


def test_a_torchvision_that_does_not_match_torch_is_told(monkeypatch):
    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nmore words")

    broken = types.SimpleNamespace(__version__="0", ops=types.SimpleNamespace(nms=nms))
    monkeypatch.setitem(sys.modules, "torchvision", broken)
    check = doctor._torchvision()
    assert (check.ok, check.required) == (False, True)
    assert check.found == "RuntimeError: operator torchvision::nms does not exist"
    assert "constraints.txt" in check.remedy


@pytest.mark.parametrize("content", [None, "#!/bin/sh\necho 'libcrypto.so.3: cannot open' >&2\nexit 127\n"])
def test_a_mongod_that_is_missing_or_does_not_run_is_told(monkeypatch, tmp_path, content):
    mongod = tmp_path / "mongod"
    if content:
        mongod.write_text(content)
        mongod.chmod(0o755)
    monkeypatch.setattr(database, "mongod_path", lambda: mongod)
    check = doctor._database()
    assert (check.ok, check.required) == (False, False)
    assert ("libcrypto.so.3" if content else "missing") in check.found
    assert "make setup" in check.remedy
    assert "FIFTYONE_DATABASE_URI" in check.remedy


def test_a_configured_database_is_asked_itself(monkeypatch, free_port):
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://127.0.0.1:{free_port}")
    check = doctor._database()
    assert not check.ok
    assert "FIFTYONE_DATABASE_URI" in check.found


def test_a_missing_browser_is_no_failure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    check = doctor._browser()
    assert (check.ok, check.required) == (False, False)
    assert "CURATE_SKIP_BROWSER" in check.remedy


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOM", 10**18)
    assert not doctor._disk().ok
    monkeypatch.setenv("CURATE_HOME", "/proc/curate")
    check = doctor._home()
    assert (check.ok, check.required) == (False, True)
    assert "CURATE_HOME" in check.remedy


def test_a_home_that_is_not_there_yet_is_fine(monkeypatch, tmp_path):
    monkeypatch.setenv("CURATE_HOME", str(tmp_path / "not" / "yet"))
    assert doctor._home().ok
    assert doctor._disk().ok
    assert not Path(tmp_path / "not").exists()


def test_looking_for_mongod_does_not_import_fiftyone():
    code = (
        "import sys; from curate.doctor import _database; _database();"
        "assert not {'fiftyone', 'torch', 'pymongo'} & set(sys.modules)"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)
