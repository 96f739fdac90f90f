"""robots.txt of each host, asked for once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from protego import Protego

from curate.acquire.failures import FetchFailure
from curate.acquire.hosts import Place


class Robots:
    """What hosts allow; safe to share between threads.

    Args:
        agent: the name to look for in robots.txt.
        read: gives the text of a place's robots.txt. A failure goes to who asked, and to all who ask later in the run;
            only what is `rejected` is tried again.
    """

    def __init__(self, agent: str, read: Callable[[Place], str]) -> None:
        self._agent = agent
        self._read = read
        self._rules: dict[Place, Protego] = {}
        self._failures: dict[Place, tuple[str, str]] = {}
        self._locks: dict[Place, threading.Lock] = {}
        self._lock = threading.Lock()

    def ask(self, place: Place, url: str) -> tuple[bool, float]:
        """Whether `url` at `place` may be fetched, and the seconds to keep between requests."""
        with self._turn(place):
            if place in self._failures:
                raise FetchFailure("failed", *self._failures[place], again=False)
            if place not in self._rules:
                self._rules[place] = Protego.parse(self._text(place))
            rules = self._rules[place]
        return bool(rules.can_fetch(url, self._agent)), float(rules.crawl_delay(self._agent) or 0.0)

    def is_asking(self, place: Place) -> bool:
        """Whether the rules of this place are being asked for, so that others would have to wait."""
        return place not in self._rules and self._turn(place).locked()

    def _turn(self, place: Place) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(place, threading.Lock())

    def _text(self, place: Place) -> str:
        try:
            return self._read(place)
        except FetchFailure as failure:
            if failure.outcome == "failed":
                reason = failure.reason if failure.reason == "robots_unavailable" else "host_unreachable"
                self._failures[place] = (reason, f"robots.txt: {failure.detail}")
            failure.again = False  # it was tried as often as the spec says
            raise
