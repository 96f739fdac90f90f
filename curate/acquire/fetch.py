"""Polite fetching: who asks is told, robots.txt and pauses are kept, bodies are capped, every failure has a name.

robots.txt and opt-out headers are kept for images. Result pages are what the user asked an engine for by name, so they
are held to the pauses, not to robots.txt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError

from curate.acquire.addresses import pool_manager
from curate.acquire.allowance import Allowance
from curate.acquire.failures import HEAD, FetchFailure, Stopped, named
from curate.acquire.history import is_final
from curate.acquire.hosts import MAX_PAUSE, SOON, Hosts, Place, place_of
from curate.acquire.robots import Robots
from curate.acquire.watchdog import Watchdog
from curate.config import ScrapeSpec

AGENT = "curate"
"""The name by which robots.txt can address this tool."""
MAX_REDIRECTS = 8
PAGE_BYTES = 20_000_000
_CHUNK = 65_536
_RETRIED = frozenset({"timeout", "connection_reset", "incomplete", "http_429", "http_502", "http_503", "http_504"})
_BUSY = frozenset({"http_429", "http_503"})
_NOBODY = frozenset({"timeout", "dns", "connection_refused", "unreachable"})
"""Reasons, where not even a status came, that speak against the whole host."""
_OPT_OUT = ("noai", "noimageai")
_ABOUT_LICENSE = ("X-Robots-Tag", "TDM-Reservation", "TDM-Policy", "License", "X-License", "X-Copyright")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A body that came whole; of a page that came with another status than 200, that status and no body.

    `license` holds the headers that say something about the licence.
    """

    body: bytes
    final_url: str
    status: int
    content_type: str
    license: Mapping[str, str] = field(default_factory=dict)


def user_agent(operator: str) -> str:
    """The one User-Agent: the tool, its version, and how to reach who runs it."""
    try:
        number = version("curate")
    except PackageNotFoundError:  # run from a source tree that is not installed
        number = "0"
    contact = operator.strip().encode("ascii", "replace").decode() or "operator not given"
    return f"{AGENT}/{number} (collects images for a data set; {contact})"


class Fetcher:
    """Fetches addresses for one crawl; safe to share between threads.

    Args:
        spec: limits, pauses and who is asking.
        stop: set from outside to end all waiting; fetches then raise `Stopped`.
        allowance: told of every byte that comes.
    """

    def __init__(
        self, spec: ScrapeSpec, *, stop: threading.Event | None = None, allowance: Allowance | None = None
    ) -> None:
        self._spec = spec
        self._stop = stop or threading.Event()
        self.allowance = allowance or Allowance(spec)
        self._hosts = Hosts(spec.per_host_connections)
        self._robots = Robots(AGENT, self._robots_text)
        self._patience = 8 * spec.timeout
        self._watchdog = Watchdog()
        self._pool = pool_manager(
            watchdog=self._watchdog,
            allow_private_hosts=spec.allow_private_hosts,
            num_pools=64,
            maxsize=spec.threads + 1,
            timeout=urllib3.Timeout(connect=spec.timeout, read=spec.timeout),
            retries=False,
            headers={"User-Agent": user_agent(spec.operator), "Accept-Encoding": "gzip, deflate"},
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.close()
        self._pool.clear()

    def image(self, url: str) -> Fetched:
        """Fetch an image, keeping robots.txt; raises `FetchFailure` or `Stopped`."""
        return self._with_retries(url, "image/avif,image/webp,image/*,*/*;q=0.8", image=True)

    def page(self, url: str) -> Fetched:
        """Fetch a result page, whatever its status; raises `FetchFailure` or `Stopped`."""
        return self._with_retries(url, "text/html,application/json;q=0.9,*/*;q=0.8", image=False)

    def seconds_until_free(self, url: str) -> float:
        """How long a request for this address would have to wait for its host, as far as can be told."""
        try:
            place = place_of(url)
        except FetchFailure:
            return 0.0
        return max(self._hosts.seconds_until_free(place), 2 * SOON if self._robots.is_asking(place) else 0.0)

    def _with_retries(self, url: str, accept: str, *, image: bool) -> Fetched:
        patience = _Patience(self._patience)
        for attempt in range(self._spec.retries + 1):
            try:
                fetched = self._follow(url, accept, patience, image=image)
            except FetchFailure as failure:
                pause = failure.retry_after if failure.retry_after is not None else 0.5 * 2**attempt
                again = attempt < self._spec.retries and failure.again and failure.reason in _RETRIED
                if failure.reason in _BUSY:  # a pause that is asked for is one for all threads
                    self._hosts.pause(place_of(failure.final_url), pause, failure.reason)
                    again = again and pause <= MAX_PAUSE
                elif again:
                    self._wait(pause)
                if again and patience.left > 0:
                    continue
                self._judge(failure)
                if image or not failure.reason.startswith("http_"):
                    raise
                # A page's status says what kind of answer it is; a page that did not come whole says nothing.
                return Fetched(body=b"", final_url=failure.final_url, status=failure.status or 0, content_type="")
            self._hosts.answered(place_of(fetched.final_url))
            return fetched
        raise AssertionError("the last attempt returns or raises")

    def _judge(self, failure: FetchFailure) -> None:
        """What the failure of an address says about its host."""
        if failure.status is not None:
            self._hosts.answered(place_of(failure.final_url))
        elif failure.again and failure.reason in _NOBODY:
            self._hosts.missed(place_of(failure.final_url), f"{failure.reason}: {failure.detail}")

    def _follow(self, url: str, accept: str, patience: _Patience, *, image: bool) -> Fetched:
        seen: set[str] = set()
        while True:
            with named(url):
                place = place_of(url)
                if url in seen or len(seen) > MAX_REDIRECTS:
                    raise FetchFailure("failed", "redirect_loop", f"{len(seen)} redirects, then {url}")
                seen.add(url)
                delay = 0.0
                self._hosts.refuse_closed(place)
                if image and self._spec.respect_robots:
                    allowed, delay = self._robots.ask(place, url)
                    if not allowed:
                        raise FetchFailure("rejected", "robots", f"{place.origin}/robots.txt forbids it")
                interval = max(self._spec.per_host_interval, min(delay, MAX_PAUSE))
                with (
                    self._hosts.turn(place, interval, self._wait), patience.running() as deadline,
                    self._watchdog.watching(patience.left + 1.0),
                ):  # fmt: skip
                    response = self._pool.request(
                        "GET", url, headers={**self._pool.headers, "Accept": accept}, redirect=False,
                        preload_content=False,
                    )  # fmt: skip
                    try:
                        location = response.get_redirect_location()
                        if not location:
                            return self._read(response, url, deadline, image=image)
                        if image and self._spec.respect_robots and (said := _opted_out(response.headers)):
                            raise FetchFailure("rejected", "opt_out", said, status=response.status)
                        self._drain(response)
                    finally:
                        response.close()  # a connection whose body was read to its end is back in the pool by now
                following = _joined(url, str(location))
            url = following

    def _read(self, response: urllib3.BaseHTTPResponse, url: str, deadline: float, *, image: bool) -> Fetched:
        kind = response.headers.get("Content-Type", "")
        status = response.status
        if status != 200:
            begun = self._drain(response)
            failure = FetchFailure(
                "failed", f"http_{status}", response.reason or "HTTP error", status=status,
                retry_after=_retry_after(response.headers.get("Retry-After")),
            )  # fmt: skip
            failure.content_type, failure.size, failure.head = kind, len(begun), begun[:HEAD]
            raise failure
        if image and self._spec.respect_robots and (said := _opted_out(response.headers)):
            raise FetchFailure("rejected", "opt_out", said, status=status)
        limit = self._spec.max_bytes if image else PAGE_BYTES
        body = bytearray()
        try:
            with named(url, body):
                # Not `stream`: it waits for whole chunks, and a body that drips would be waited for without end.
                while chunk := response.read1(_CHUNK, decode_content=True):
                    body += chunk
                    if len(body) > limit:
                        raise FetchFailure("rejected", "too_many_bytes", f"more than {limit}")
                    if time.monotonic() > deadline:
                        raise FetchFailure("failed", "timeout", f"{len(body)} bytes in {self._patience:.0f} s")
        except FetchFailure as failure:
            failure.status, failure.content_type = status, kind
            raise
        finally:
            self.allowance.spend(len(body))
        return Fetched(
            body=bytes(body), final_url=url, status=status, content_type=kind, license=_license(response.headers)
        )

    def _drain(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """Read a short body that nobody wants, so that the connection can serve again; returns what came."""
        try:
            begun = response.read(_CHUNK)
        except HTTPError:
            return b""
        self.allowance.spend(len(begun))
        return begun

    def _robots_text(self, place: Place) -> str:
        """What robots.txt says; empty where there is none. A server that cannot say forbids all, for now."""
        rules = f"{place.origin}/robots.txt"
        try:
            fetched = self._with_retries(rules, "text/plain,*/*;q=0.5", image=False)
        except FetchFailure as failure:
            if is_final(failure.reason):  # redirects without an end
                return ""
            own = _is_at(failure.final_url, place)
            if own and failure.status is None and failure.outcome == "failed":
                self._hosts.missed(place, f"{failure.reason}: {failure.detail}", enough=True)
                raise  # the host does not answer at all: that is what happened to the image, too
            if own and failure.reason == "private_address":
                raise
            detail = f"{rules}: {failure.reason}: {failure.detail}"
            raise FetchFailure("failed", "robots_unavailable", detail) from failure
        if fetched.status // 100 == 2 or is_final(f"http_{fetched.status}"):
            return fetched.body[:512_000].decode("utf-8", "replace")
        raise FetchFailure("failed", "robots_unavailable", f"{rules}: HTTP {fetched.status}")

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Stopped("stopped")


class _Patience:
    """Seconds that an address has over all of its redirects and tries; waiting for a host's turn does not count."""

    def __init__(self, seconds: float) -> None:
        self.left = self._all = seconds

    @contextmanager
    def running(self) -> Iterator[float]:
        """Use up what is left; yields the moment at which it is used up."""
        start = time.monotonic()
        if self.left <= 0:
            raise FetchFailure("failed", "timeout", f"the address took more than {self._all:.0f} s")
        try:
            yield start + self.left
        finally:
            self.left -= time.monotonic() - start


def _is_at(url: str, place: Place) -> bool:
    try:
        return place_of(url) == place
    except FetchFailure:
        return False


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError as error:
        raise FetchFailure("rejected", "bad_url", f"redirect to {location[:200]}: {error}") from error


def _opted_out(headers: Mapping[str, str]) -> str:
    """The header by which a site asks that this image is not used for training; empty where it does not."""
    tag = headers.get("X-Robots-Tag", "").lower()
    if any(word in _OPT_OUT for word in tag.replace(",", " ").replace(":", " ").split()):
        return f"X-Robots-Tag: {tag}"
    reserved = headers.get("TDM-Reservation", "").strip()
    return f"TDM-Reservation: {reserved}" if reserved == "1" else ""


def _license(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that say something about the licence, among them a `Link` to it."""
    told = {name: value for name in _ABOUT_LICENSE if (value := headers.get(name))}
    links = [part.strip() for part in headers.get("Link", "").split(",") if "license" in part.partition(">")[2]]
    return told | ({"Link": ", ".join(links)} if links else {})


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError, OSError):  # a date that no calendar has
        return None
