"""How scraping looks to people: live figures while it runs, and tables of what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len

EVERY = 10.0
"""Seconds between two lines about one class where there is no terminal."""
NARROW = 70
"""Columns of a terminal below which only what was kept and lost is shown."""

Watch = Callable[[Mapping[str, Any]], None]
_FIGURES = ("found", "asked", "fetched", "kept", "rejected", "failed")


def yield_lines(yields: Iterable[Mapping[str, Any]]) -> list[str]:
    """A table of engine x query x class, as lines of text.

    Args:
        yields: mappings with the attributes of `curate.acquire.history.Yield`.
    """
    rows = [("engine", "query", "class", "asked", "fetched", "kept", "known", "rejected", "failed", "answers")]
    for y in yields:
        counts = (str(y[name]) for name in ("asked", "fetched", "kept", "known"))
        reasons = (_reasons(y[name]) for name in ("rejected", "failed", "answers"))
        rows.append((y["engine"], y["query"] or "-", y["label"], *counts, *reasons))
    return _aligned(rows, right=range(3, 7))


def _reasons(counts: Mapping[str, int]) -> str:
    if not counts:
        return "-"
    told = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return told if len(counts) == 1 else f"{sum(counts.values())}: {told}"


def _aligned(rows: Sequence[Sequence[str]], *, right: Iterable[int]) -> list[str]:
    rights = set(right)
    widths = [max(cell_len(row[n]) for row in rows) for n in range(len(rows[0]))]

    def cell(n: int, text: str) -> str:
        gap = " " * (widths[n] - cell_len(text))  # Han characters are two cells wide
        return gap + text if n in rights else text + gap

    return ["  ".join(cell(n, text) for n, text in enumerate(row)).rstrip() for row in rows]


class Figures:
    """What is known of each class while a scrape runs; fed by the events of `curate.acquire.scrape`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}
        self.now: dict[str, Mapping[str, Any]] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in an event."""
        label = str(event["label"])
        self._last[label] = self._clock()
        self._begun.setdefault(label, (self._last[label], int(event["asked"])))
        self.now[label] = event

    def rate(self, label: str) -> float:
        """Addresses a second of a class; 0 in its first second, in which it would be a guess."""
        begun, already = self._begun[label]
        seconds = self._last[label] - begun
        return (int(self.now[label]["asked"]) - already) / seconds if seconds >= 1 else 0.0

    def line(self, label: str) -> str:
        """The figures of a class in one line."""
        event = self.now[label]
        figures = {name: str(event[name]) for name in _FIGURES} | {"kept": f"{event['kept']} of {event['limit']}"}
        told = ", ".join(f"{name} {figure}" for name, figure in figures.items())
        return f"scrape: {label}: {told}, {self.rate(label):.0f}/s"


@contextmanager
def live(*, quiet: bool) -> Iterator[Watch]:
    """Figures of each class on stderr: a table that renews itself on a terminal, plain lines elsewhere."""
    figures = Figures()
    if quiet:
        yield figures.take
        return
    if not sys.stderr.isatty():
        with _plain(figures) as watch:
            yield watch
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    console = Console(stderr=True)

    def table() -> Table:
        shown = _FIGURES if console.width >= NARROW else _FIGURES[-3:]
        made = Table(box=None, header_style="bold")
        made.add_column("class", overflow="ellipsis")
        for name in (*shown, "/s"):
            made.add_column(name, justify="right", no_wrap=True)
        for label, event in list(figures.now.items()):  # other threads add to it
            cells = {name: str(event[name]) for name in shown} | {"kept": f"{event['kept']}/{event['limit']}"}
            made.add_row(label, *cells.values(), f"{figures.rate(label):.0f}")
        return made

    with Live(get_renderable=table, console=console, refresh_per_second=4, transient=True):
        yield figures.take


@contextmanager
def _plain(figures: Figures) -> Iterator[Watch]:
    told: dict[str, float] = {}

    def say(label: str) -> None:
        sys.stderr.write(figures.line(label) + "\n")

    def watch(event: Mapping[str, Any]) -> None:
        label = str(event["label"])
        if label not in told and told:
            say(list(told)[-1])  # the class before is through
        figures.take(event)
        if time.monotonic() - told.setdefault(label, time.monotonic()) >= EVERY:
            told[label] = time.monotonic()
            say(label)

    try:
        yield watch
    finally:
        if told:
            say(list(told)[-1])
