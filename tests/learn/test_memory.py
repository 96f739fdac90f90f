from __future__ import annotations

from typing import Any

import pytest
import torch

from curate.config import AugmentSpec, TrainSpec
from curate.errors import EnvironmentMissing
from curate.learn import train as training


def out_of_memory_above(limit: int, sizes: list[int]) -> Any:
    """A training that fails as a full GPU does while its batches are larger than `limit`."""

    def run(*_: Any, spec: TrainSpec, **__: Any) -> Any:
        sizes.append(spec.batch_size)
        if spec.batch_size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "learner", []

    return run


def trained(batch_size: int, told: list[str]) -> Any:
    import numpy as np

    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    spec = TrainSpec(batch_size=batch_size)
    return training.train(
        [0, 1], ["a", "b"], ["a", "b"], pixels, spec=spec, augment=AugmentSpec(), seed=0, report=told.append
    )


def test_batches_halve_until_they_fit_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    told: list[str] = []
    monkeypatch.setattr(training, "_train", out_of_memory_above(10, sizes))
    assert trained(32, told)[0] == "learner"
    assert sizes == [32, 16, 8]
    assert [words.rsplit(" ", 1)[1] for words in told] == ["16", "8"]


def test_a_gpu_that_holds_no_two_images_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_train", out_of_memory_above(0, []))
    with pytest.raises(EnvironmentMissing, match="too little memory"):
        trained(4, [])
