"""Figures of the report, as SVG text that stands in the page itself."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

INK, SOFT, RAW, CURATED, EXPECTED = "#24292f", "#8c959f", "#9a6700", "#1a7f37", "#0969da"

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "curate", "font.family": "sans-serif", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#d0d7de", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip


def _svg(figure: Any, title: str) -> str:
    """The figure as an SVG element that scales with the page and carries its title for readers that cannot see it."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg role="img" \1width="100%"', text, count=1).replace(
        'height="', 'data-height="', 1
    )


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def accuracy(by_seed: Mapping[str, Sequence[float]], ci95: Sequence[float], difference: float) -> str:
    """Accuracy of each seed before and after, joined in pairs."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure, axes = _figure(6.2, 2.1)
        for row, (arm, colour) in enumerate((("raw", RAW), ("curated", CURATED))):
            values = [100 * v for v in by_seed[arm]]
            axes.scatter(values, [1 - row] * len(values), s=70, color=colour, zorder=3)
            mean = sum(values) / len(values)
            axes.annotate(f"{mean:.1f}%", (mean, 1 - row), xytext=(0, 11), textcoords="offset points", ha="center",
                          color=colour, fontweight="bold")  # fmt: skip
        for before, after in zip(by_seed["raw"], by_seed["curated"], strict=True):
            axes.plot([100 * before, 100 * after], [1, 0], color=SOFT, linewidth=1)
        axes.set_yticks([1, 0], ["raw", "curated"])
        axes.set_ylim(-0.45, 1.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy on the trusted holdout, % (one point per seed)")
        return _svg(figure, f"Accuracy raw and curated; difference {100 * difference:.1f} points")


def yield_curve(expected: Sequence[float], actual: Sequence[float] | None, reviewed: int) -> str:
    """Errors found by the length of the review: expected before it, and what it found.

    Args:
        expected: running sum of p_wrong along the queue.
        actual: running number of errors found among the first `len(actual)`, or None before any review.
        reviewed: length of the review.
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure, axes = _figure(6.2, 2.9)
        axes.plot(
            range(1, len(expected) + 1), expected, color=EXPECTED, linewidth=1.6, label="expected before the review"
        )
        if actual:
            axes.plot(range(1, len(actual) + 1), actual, color=CURATED, linewidth=2, label="found by the review")
            axes.axvline(reviewed, color=SOFT, linewidth=1, linestyle=":")
        axes.set_xlabel("images looked at, in the order of the queue")
        axes.set_ylabel("errors")
        axes.set_xlim(0, max(1, len(expected)))
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
        return _svg(figure, "Errors by the length of the review")
