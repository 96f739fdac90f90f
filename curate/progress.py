"""Progress of long stages, as people see it: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Tell = Callable[[str, str, int, int], None]
"""`tell(stage, what, done, total)`, as in `curate.pipeline.Progress`."""


@dataclass
class Pace:
    """How fast a step goes, from the first time that it was heard of.

    Attributes:
        clock: tells the time in seconds.
    """

    clock: Callable[[], float] = time.monotonic
    begun: float = 0.0
    before: int = 0

    def start(self, done: int) -> None:
        """A step begins, with so much of it done."""
        self.begun, self.before = self.clock(), done

    def rate(self, done: int) -> float:
        """How many a second; 0 where it cannot be told yet."""
        took = self.clock() - self.begun
        return (done - self.before) / took if took > 0 else 0.0

    def told(self, done: int, total: int) -> str:
        """How far it is, in words, with rate and time left.

        Example:
            >>> times = iter([0.0, 10.0])
            >>> pace = Pace(clock=lambda: next(times))
            >>> pace.start(0)
            >>> pace.told(2500, 10000)
            '2,500 of 10,000, 250/s, 0:30 left'
        """
        rate = self.rate(done)
        far = f"{done:,} of {total:,}" if total else f"{done:,}"
        if rate <= 0:
            return far
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        if not total:
            return f"{far}, {speed}"
        minutes, seconds = divmod(round((total - done) / rate), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
        return f"{far}, {speed}, {left} left"


@dataclass
class Lines:
    """Progress off a terminal: a line when a step begins, and one with rate and time left every so many seconds."""

    say: Callable[[str], None]
    every: float = 30.0
    pace: Pace = field(default_factory=Pace)
    _step: str = ""
    _last: float = 0.0

    def __call__(self, stage: str, what: str, done: int, total: int) -> None:
        """See `curate.pipeline.Progress`."""
        step = f"{stage}: {what}"
        if step != self._step:
            self._step = step
            self.pace.start(done)
            self._last = self.pace.begun
            self.say(step)
        elif (now := self.pace.clock()) - self._last >= self.every:
            self._last = now
            self.say(f"{step} {self.pace.told(done, total)}")


@contextmanager
def showing(quiet: bool, say: Callable[[str], None]) -> Iterator[Tell]:
    """Yield what stages tell their progress to; `say` prints a line where there is no terminal."""
    if quiet:
        yield lambda stage, what, done, total: None
        return
    if not sys.stderr.isatty():
        yield Lines(say)
        return
    from rich.console import Console

    with bars(Console(stderr=True)) as update:
        yield update


@contextmanager
def bars(console: Any) -> Iterator[Tell]:
    """A bar for the step under way, with rate and time left."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}")
    with Progress(*columns, console=console, transient=True) as shown:
        steps: dict[tuple[str, str], Any] = {}
        pace = Pace()

        def update(stage: str, what: str, done: int, total: int) -> None:
            if (stage, what) not in steps:
                for step in steps.values():
                    shown.remove_task(step)
                steps.clear()
                steps[stage, what] = shown.add_task(f"{stage}: {what}", total=None, told="")
                pace.start(done)
            told = pace.told(done, total) if total else ""
            shown.update(steps[stage, what], completed=done, total=total or None, told=told)

        yield update
