"""What a run knows of each host: when it may be asked next, how many do so now, and whether it answers at all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from curate.acquire.failures import FetchFailure

MAX_PAUSE = 30.0
"""Seconds: a host that asks for a longer pause is left alone until the next run."""
MISSES = 3
"""Addresses of a host in a row that nobody answers for, before the others of it are not tried any more."""
SOON = 0.5
"""Seconds that a thread may wait for a host; tasks of hosts that need longer are put aside, see `Waiting`."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a URL is asked, in one spelling: small letters, no dot at the end, the port written out."""

    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """Scheme, host and port as a URL begins with them."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def place_of(url: str) -> Place:
    """The place of a URL.

    Raises:
        FetchFailure: it has none, or is not to be asked (`bad_url`, `scheme`).

    Example:
        >>> place_of("HTTP://me@Example.org.:80/x").origin
        'http://example.org'
    """
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in url):
        raise FetchFailure("rejected", "bad_url", f"control characters in {url[:200]!a}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise FetchFailure("rejected", "bad_url", f"{error}: {url[:200]}") from error
    if parts.scheme not in _PORTS:
        raise FetchFailure("rejected", "scheme", f"{parts.scheme or 'no scheme'}: only http and https are fetched")
    if not host:
        raise FetchFailure("rejected", "bad_url", f"no host: {url[:200]}")
    return Place(scheme=parts.scheme, host=host.rstrip("."), port=_PORTS[parts.scheme] if port is None else port)


@dataclass
class _Host:
    busy: int = 0
    following: float = 0.0
    paused_until: float = 0.0


class Hosts:
    """Pauses, numbers of requests at once, and hosts that are given up for this run; safe to share between threads.

    Args:
        connections: requests to one host at once.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._hosts: dict[str, _Host] = {}
        self._misses: dict[Place, int] = {}
        self._closed: dict[Place | str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, place: Place, interval: float, wait: Callable[[float], None]) -> Iterator[None]:
        """Be one of those who ask a host, when its pauses are over.

        Args:
            place: where.
            interval: seconds until the next one may start.
            wait: waits for so many seconds, or raises.
        """
        while not (host := self._enter(place)):
            wait(0.02)
        try:
            with self._lock:
                at = max(time.monotonic(), host.following, host.paused_until)
                host.following = at + interval
            wait(at - time.monotonic())
            while host.paused_until > at:  # another thread was told to wait in the meantime
                at = host.paused_until
                wait(at - time.monotonic())
            self.refuse_closed(place)
            yield
        finally:
            with self._lock:
                host.busy -= 1

    def _enter(self, place: Place) -> _Host | None:
        self.refuse_closed(place)
        with self._lock:
            host = self._hosts.setdefault(place.host, _Host())
            if host.busy >= self._connections:
                return None
            host.busy += 1
            return host

    def seconds_until_free(self, place: Place) -> float:
        """How long a request to this host would have to wait, as far as can be told; 0 where it is given up."""
        with self._lock:
            host = self._hosts.get(place.host)
            if host is None or self._reason(place):
                return 0.0
            pause = max(host.following, host.paused_until) - time.monotonic()
            return max(0.0, pause, 2 * SOON if host.busy >= self._connections else 0.0)

    def pause(self, place: Place, seconds: float, why: str) -> None:
        """Leave a host alone for so long; for the rest of the run where that is longer than `MAX_PAUSE`."""
        with self._lock:
            if seconds > MAX_PAUSE:
                self._closed[place.host] = ("host_paused", f"{place.host} asked for {seconds:.0f} s ({why})")
            else:
                host = self._hosts.setdefault(place.host, _Host())
                host.paused_until = max(host.paused_until, time.monotonic() + seconds)

    def answered(self, place: Place) -> None:
        """Somebody answers there."""
        with self._lock:
            self._misses.pop(place, None)

    def missed(self, place: Place, why: str, *, enough: bool = False) -> None:
        """An address there had no answer; a few in a row (or one that is `enough`), and the others are not tried."""
        with self._lock:
            self._misses[place] = self._misses.get(place, 0) + 1
            if enough or self._misses[place] >= MISSES:
                self._closed.setdefault(place, ("host_unreachable", f"{place.origin} did not answer before: {why}"))

    def refuse_closed(self, place: Place) -> None:
        """Raise `FetchFailure` for a host that is given up."""
        with self._lock:
            told = self._reason(place)
        if told:
            raise FetchFailure("failed", *told, again=False)

    def _reason(self, place: Place) -> tuple[str, str] | None:
        return self._closed.get(place.host) or self._closed.get(place)
