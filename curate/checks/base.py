"""What all checks share: the tables they see, and how their findings are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.config import ChecksSpec
from curate.errors import CurateError, TableError
from curate.schema import EMBEDDINGS, FEATURES, FINDINGS, GROUPS, HOLDOUT, PAIRS, PREDICTIONS, validate


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a check sees. Tables of stages that have not run are empty.

    Attributes:
        manifest, features, pairs, groups, embeddings, predictions: see `curate.schema`.
        probs: (N, K) probabilities of the rows of `predictions`, mapped from disk, where there are so many classes that
            the table does not hold them.
        classes: class names, in the order of the columns of `probs`.
        titles: class name to what people read.
        orphans: path to the image it was dropped in favour of, where that one is itself out or unreadable.
    """

    manifest: pl.DataFrame
    features: pl.DataFrame = field(default_factory=FEATURES.empty)
    pairs: pl.DataFrame = field(default_factory=PAIRS.empty)
    groups: pl.DataFrame = field(default_factory=GROUPS.empty)
    embeddings: pl.DataFrame = field(default_factory=EMBEDDINGS.empty)
    predictions: pl.DataFrame = field(default_factory=PREDICTIONS.empty)
    probs: NDArray[np.floating] | None = None
    classes: tuple[str, ...] = ()
    titles: dict[str, str] = field(default_factory=dict)
    orphans: dict[str, str] = field(default_factory=dict)

    def title(self, label: str | None) -> str:
        """What people read for a class."""
        return "no label" if label is None else self.titles.get(label) or label

    def judged(self) -> pl.DataFrame:
        """Readable rows outside the trusted holdout: those that checks may judge."""
        return self.manifest.filter((pl.col("status") == "ok") & pl.col("split").ne_missing(HOLDOUT))


Check = Callable[[Tables, ChecksSpec], pl.DataFrame]
"""`check(tables, options) -> findings` of schema `FINDINGS`."""


def finding(
    path: str, check: str, score: float, reason: str, *, p_wrong: float | None = None, group: int | None = None,
    suggestion: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One row of a findings table; `score` is clipped to [0, 1]."""
    return {
        "path": path, "check": check, "score": min(1.0, max(0.0, float(score))), "p_wrong": p_wrong, "group": group,
        "suggestion": suggestion, "reason": reason,
    }  # fmt: skip


def table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Findings as a table, in a fixed order: by check, worst first, then by path."""
    made = pl.DataFrame(list(rows), schema=FINDINGS.columns, orient="row")
    return validate(made.sort("check", "score", "path", "group"), FINDINGS)


def installed() -> list[Check]:
    """Checks of installed packages, from the entry point group `curate.checks`."""
    return [point.load() for point in sorted(entry_points(group="curate.checks"), key=lambda point: point.name)]


def run_checks(checks: Sequence[Check], tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Run checks and put their findings into one table; a finding that says the same twice counts once.

    Raises:
        CurateError: a check of another package returned no findings table; the check is named.
    """
    parts = [FINDINGS.empty()]
    for check in checks:
        try:
            found = check(tables, options)
            if not isinstance(found, pl.DataFrame):
                msg = f"returned {type(found).__name__}, not a table of findings"
                raise TableError(msg)
            parts.append(validate(found, FINDINGS))
        except CurateError as error:
            name = f"{check.__module__}.{getattr(check, '__name__', check)}"
            msg = f"check {name}: {error}"
            raise type(error)(msg) from error
    return validate(pl.concat(parts).unique().sort("check", "score", "path", "group"), FINDINGS)
