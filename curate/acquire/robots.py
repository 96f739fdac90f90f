"""robots.txt of each host, asked for once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from protego import Protego


class Robots:
    """What hosts allow; safe to share between threads.

    Args:
        agent: the name to look for in robots.txt.
        read: gives the text of an origin's robots.txt. What it raises goes to who asked, and is not remembered.
    """

    def __init__(self, agent: str, read: Callable[[str], str]) -> None:
        self._agent = agent
        self._read = read
        self._rules: dict[str, Protego] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def ask(self, origin: str, url: str) -> tuple[bool, float]:
        """Whether `url` at `origin` (scheme and host) may be fetched, and the seconds to keep between requests."""
        with self._lock:
            turn = self._locks.setdefault(origin, threading.Lock())
        with turn:
            if origin not in self._rules:
                self._rules[origin] = Protego.parse(self._read(origin))
            rules = self._rules[origin]
        return bool(rules.can_fetch(url, self._agent)), float(rules.crawl_delay(self._agent) or 0.0)
