"""Quality: pictures that are dark, blurred, tiny, empty or cannot be read, each with its figure and the limit."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec

_FEW = 10
"""Of so many pictures each is told, whatever share of a small data set they are."""


class _Kind(NamedTuple):
    """A fault: its name is that of its limit in [checks]; which figure, and on which side of the limit it is bad."""

    name: str
    words: str
    figure: pl.Expr
    above: bool = False
    whole: float | None = None  # the largest value of a figure that is a share
    only_unusual: bool = False


_SHORTER = pl.min_horizontal("width", "height")
_KINDS = (
    _Kind("dark", "mean brightness", pl.col("brightness")),
    _Kind("bright", "mean brightness", pl.col("brightness"), above=True, whole=1.0),
    _Kind("low_contrast", "contrast", pl.col("contrast")),
    _Kind("low_information", "bits of entropy", pl.col("entropy")),
    _Kind("blurry", "sharpness", pl.col("sharpness")),
    _Kind("tiny", "pixels on the shorter side", _SHORTER),
    _Kind("odd_aspect", "longer over shorter side", pl.max_horizontal("width", "height") / _SHORTER, above=True),
    _Kind("greyscale", "among pictures in colour, spread of the channels", pl.col("colourfulness"), only_unusual=True),
    _Kind(
        "mostly_border", "share of the area in uniform margins", pl.col("border"), above=True, whole=1.0,
        only_unusual=True,
    ),
)  # fmt: skip


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `quality:<kind>`; `score` is how far within the limit the figure lies, as a share of the limit.

    What many pictures of a data set have is its style and no finding: see `notes`.
    """
    rows = []
    for path, error in tables.manifest.filter(pl.col("status") != "ok").select("path", "error").iter_rows():
        rows.append(finding(path, "quality:unreadable", 0.0, f"cannot be read: {error}"))
    judged = _judged(tables)
    for kind, faulty in _faulty(judged, options):
        if _is_style(kind, faulty.height, judged.height, options):
            continue
        limit = getattr(options, kind.name)
        for path, figure in faulty.select("path", "figure").iter_rows():
            said = f"{kind.name.replace('_', ' ')}: {kind.words} {_told(figure, limit)}"
            reason = f"{said}, the limit is [checks] {kind.name} = {limit:.12g}"
            rows.append(finding(path, f"quality:{kind.name}", _score(kind, figure, limit), reason))
    return table(rows)


def notes(tables: Tables, options: ChecksSpec) -> list[str]:
    """What so many pictures have that it is told once, as the style of the data set, and not of each of them."""
    judged = _judged(tables)
    told = []
    for kind, faulty in _faulty(judged, options):
        if _is_style(kind, faulty.height, judged.height, options):
            share = "unusual" if kind.only_unusual else "style"
            limit, most = (f"[checks] {key} = {getattr(options, key):.12g}" for key in (kind.name, share))
            told.append(
                f"{faulty.height} of {judged.height} pictures are {kind.name.replace('_', ' ')} ({limit}): "
                f"taken as the style of the data set and not told one by one ({most})"
            )
    return told


def _judged(tables: Tables) -> pl.DataFrame:
    return tables.judged().select("path").join(tables.features, on="path").sort("path")


def _faulty(judged: pl.DataFrame, options: ChecksSpec) -> list[tuple[_Kind, pl.DataFrame]]:
    """The pictures that each kind fits, with their figure."""
    light = pl.col("brightness").is_between(options.dark, options.bright)
    # Where nothing can be seen nothing is blurred, and where hardly anything can, no colour and no frame is seen.
    needs = {
        "blurry": light & (pl.col("contrast") >= options.low_contrast),
        "greyscale": light & (pl.col("contrast") >= 2 * options.low_contrast),
        "mostly_border": light & (pl.col("contrast") >= 2 * options.low_contrast),
    }
    found = []
    for kind in _KINDS:
        figure, limit = kind.figure.cast(pl.Float64), float(getattr(options, kind.name))
        bad = figure > limit if kind.above else figure < limit
        faulty = judged.with_columns(figure=figure).filter(bad & needs.get(kind.name, True))
        found.append((kind, faulty))
    return found


def _is_style(kind: _Kind, faulty: int, judged: int, options: ChecksSpec) -> bool:
    # A set of drawings or of scans is grey and has margins: these are told only where they stand out.
    if kind.only_unusual:
        return faulty > options.unusual * judged
    return faulty > max(_FEW, options.style * judged)


def _score(kind: _Kind, figure: float, limit: float) -> float:
    if kind.whole is not None:
        return (kind.whole - figure) / (kind.whole - limit) if limit < kind.whole else 0.0
    if kind.above:
        return limit / figure
    return figure / limit if limit else 0.0


def _told(figure: float, limit: float) -> str:
    """The figure with as many digits as show on which side of the limit it lies."""
    for digits in range(3, 17):
        text = f"{figure:.{digits}g}"
        if float(text) != limit and (float(text) < limit) == (figure < limit):
            return text
    return repr(figure)
