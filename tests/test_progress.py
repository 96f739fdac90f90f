from __future__ import annotations

import io

import pytest
from rich.console import Console

from curate.progress import Lines, Pace, bars, showing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_off_a_terminal_a_line_comes_now_and_then_with_rate_and_time_left() -> None:
    clock, said = Clock(), list[str]()
    tell = Lines(said.append, every=30, pace=Pace(clock=clock))
    for second in range(0, 101):
        clock.now = 100.0 + second
        tell("measure", "images", 64 + 500 * second, 200_064)
    tell("dedupe", "pairs compared", 0, 0)
    clock.now += 31
    tell("dedupe", "pairs compared", 155, 0)
    assert said == [
        "measure: images",
        "measure: images 15,064 of 200,064, 500/s, 6:10 left",
        "measure: images 30,064 of 200,064, 500/s, 5:40 left",
        "measure: images 45,064 of 200,064, 500/s, 5:10 left",
        "dedupe: pairs compared",
        "dedupe: pairs compared 155, 5/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "done", "total", "told"),
    [
        (0, 0, 50, "0 of 50"), (10, 0, 50, "0 of 50"), (10, 50, 50, "50 of 50, 5/s, 0:00 left"),
        (10, 10, 1_000_000, "10 of 1,000,000, 1/s, 277:46:30 left"), (100, 5, 10, "5 of 10, 0.05/s, 1:40 left"),
    ],
)  # fmt: skip
def test_a_pace_is_told_in_words(seconds: float, done: int, total: int, told: str) -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.start(0)
    clock.now += seconds
    assert pace.told(done, total) == told


def test_on_a_terminal_the_bar_shows_rate_and_time_left() -> None:
    out = io.StringIO()
    with bars(Console(file=out, force_terminal=True, width=120)) as tell:
        tell("scan", "files", 0, 0)
        tell("measure", "images", 64, 6400)
        tell("measure", "images", 3200, 6400)
        tell("measure", "images", 3264, 6400)
    shown = out.getvalue()
    assert "measure: images" in shown
    assert "3,264 of 6,400" in shown
    assert "/s" in shown
    assert "left" in shown


def test_where_nobody_watches_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with showing(True, said.append) as tell:
        tell("measure", "images", 1, 2)
    assert said == []
    with showing(False, said.append) as tell:  # stderr is no terminal here
        tell("measure", "images", 1, 2)
    assert said == ["measure: images"]
    assert capsys.readouterr() == ("", "")
