from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

import curate


def test_all_is_complete_and_every_name_is_documented() -> None:
    assert set(dir(curate)) >= set(curate.__all__)
    assert list(curate.__all__) == sorted(curate.__all__)
    for name in curate.__all__:
        assert inspect.getdoc(getattr(curate, name)), name


def test_no_public_name_hides_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(curate.__path__)}
    assert modules & set(curate.__all__) == set()


@pytest.mark.parametrize("module", ["curate", "curate.dataset", "curate.pipeline", "curate.cli", "curate.demo.loop"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'fastai', 'fiftyone', 'ray', 'icrawler', 'sklearn', 'cleanlab', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
