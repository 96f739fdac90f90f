"""From a messy pile of scraped images to a clean, proven data set.

Importing curate imports no torch, fastai, fiftyone or ray: public names are loaded when they are first used.

Example:
    >>> import curate
    >>> curate.near_pairs([0b0, 0b1, 0b1111], max_distance=1)
    (array([0]), array([1]), array([1], dtype=int16))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.budget import expect
    from curate.checks.labels import error_posterior
    from curate.dataset import Dataset, new_dataset
    from curate.dataset import open_dataset as open
    from curate.errors import CurateError
    from curate.neighbours import groups, near_pairs
    from curate.proof import compare
    from curate.resolve import CleanView

__all__ = [
    "CleanView", "CurateError", "Dataset", "compare", "error_posterior", "expect", "groups", "near_pairs",
    "new_dataset", "open",
]  # fmt: skip

_HOMES = {
    "CleanView": "resolve", "CurateError": "errors", "Dataset": "dataset", "compare": "proof",
    "error_posterior": "checks.labels", "expect": "budget", "groups": "neighbours", "near_pairs": "neighbours",
    "new_dataset": "dataset", "open": "dataset:open_dataset",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'curate' has no attribute {name!r}"
        raise AttributeError(msg)
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(f"curate.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
