"""The order of a crawl: what may be asked, and what becomes of it, independent of which thread is faster.

Images are fetched by many threads and recorded in the order in which the engines ranked them. An image is asked for
only when the limit of its class leaves room for it and for all that were asked before it; a page likewise. So nothing
is fetched that is not used, and the data set is the same in every run.

One slow address does not hold up what came after it for ever: what has waited for its turn too long, and all that is
there when the crawl ends, is recorded out of turn. The limit is kept all the same, since room was reserved for it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from curate.acquire.answers import Answer, Hit
from curate.acquire.attempts import Attempt, Task, clean, image_line, repeated_line
from curate.acquire.history import History, Line
from curate.acquire.store import free_path, put_in_place, sync_file, sync_folders
from curate.config import ScrapeSpec
from curate.errors import CurateError
from curate.workspace import Workspace, append_log, file_digest, now

Progress = Callable[[dict[str, Any]], None]
_SYNCING = 8
"""Files that are synced at once: a journal writes many for the price of one."""
OVERDUE = 10.0
"""Seconds after which what is ready is recorded out of turn."""

Entry = tuple[Task, Attempt] | Task | Line
"""What is recorded: an attempt, an address that is offered once more and not asked for, or the answer of a page."""


class Ledger:
    """The order and the record of the crawl of one class; safe to share between threads.

    Args:
        workspace: the data set.
        spec: the scrape section of its spec.
        label: the class.
        limit: kept images at most.
        history: earlier attempts.
        refresh: ask again also for what is settled; what this run has confirmed is counted until it is the limit, and
            new bytes are kept only as far as the class has room for them.
        progress: called after each recorded attempt.
        stop: set by `halt`, so that all waiting elsewhere ends too.
    """

    def __init__(
        self, workspace: Workspace, spec: ScrapeSpec, label: str, *, limit: int, history: History, refresh: bool,
        progress: Progress | None, stop: threading.Event,
    ) -> None:  # fmt: skip
        self.workspace, self.label, self.limit = workspace, label, limit
        self.lines: list[Line] = []
        self.error: BaseException | None = None
        self.ended = threading.Semaphore(0)  # released by each thread of the crawl when it ends
        self._spec, self._history, self._refresh, self._progress, self._stop = spec, history, refresh, progress, stop
        self._paths: dict[str, str] = dict(history.paths)
        self._counted: set[str] = set() if refresh else set(history.present)
        self._held: set[str] = set(history.present)  # files that the class has, whether this run confirmed them or not
        self._sound: set[str] = set()  # files that were looked into, or written, in this run
        self._obtained: dict[str, Line] = dict(history.held)
        self._offered: dict[str, set[tuple[str, str]]] = {}
        self._done: dict[int, tuple[float, Entry]] = {}  # in the order in which it came
        self._early: set[int] = set()  # numbers that were recorded out of turn
        self._counts: Counter[str] = Counter()
        self._syncing = ThreadPoolExecutor(_SYNCING, thread_name_prefix="syncing")
        self._numbers, self._next, self._open, self._started = 0, 0, 0, 0
        self._state = threading.Condition()
        self._committing = threading.Lock()
        self._closed = False

    # -- asked by the threads before they do something

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be asked: the limit is reached, or the crawl was stopped."""
        return len(self._counted) >= self.limit or self._stop.is_set()

    def may_ask_page(self) -> bool:
        """Wait until it is certain that another page is needed (True), or that none is."""
        with self._state:
            self._state.wait_for(lambda: self.is_over or len(self._counted) + self._open < self.limit)
            return not self.is_over

    def may_start(self, patience: float | None = None) -> bool:
        """Wait until there is room for one more image, were all that were started kept. Called in order of tasks.

        False where the crawl is over, or there was no room for so many seconds.
        """
        with self._state:
            self._state.wait_for(lambda: self.is_over or len(self._counted) + self._started < self.limit, patience)
            if self.is_over or len(self._counted) + self._started >= self.limit:
                return False
            self._started += 1
            return True

    def has(self, sha256: str) -> bool:
        """Whether the class has these bytes already, undamaged, so that they need not be staged."""
        path = self._paths.get(sha256)
        return path is not None and path in self._counted and self._is_sound(path, sha256)

    def is_purged(self, sha256: str) -> bool:
        """Whether these bytes were taken down, and must not come back."""
        return sha256 in self._history.purged

    # -- told by the threads

    def answered(self, engine: str, query: str, url: str, page: int, answer: Answer) -> None:
        """Record the answer of a result page, in its place in the order."""
        line = {
            "v": 1, "kind": "query", "at": now(), "engine": engine, "query": query, "label": self.label, "url": url,
            "page": page, "outcome": answer.kind, "hits": len(answer.hits), "detail": clean(answer.detail),
        }  # fmt: skip
        self._add(line)

    def offer(self, engine: str, query: str, hit: Hit, *, license_filter: str = "") -> Task | None:
        """The task for a hit; None where its address is settled or was offered before."""
        hit = replace(
            hit, url=clean(hit.url), page_url=clean(hit.page_url), title=clean(hit.title)[:500],
            thumbnail=clean(hit.thumbnail), license=clean(hit.license)[:500],
        )  # fmt: skip
        unit = (engine, query)
        with self._state:
            units = self._offered.setdefault(hit.url, set())
            if unit in units or hit.url in self._history.purged_urls:
                return None
            units.add(unit)
            task = Task(number=self._numbers, engine=engine, query=query, hit=hit, license_filter=license_filter)
            asked = len(units) > 1 or (not self._refresh and self._history.is_settled(hit.url, self._spec))
            if not asked:
                if self._refresh and len(self._history.present) >= self.limit and hit.url not in self._history.last:
                    return None  # a refresh looks after what is there; what is new would go beyond the limit
                self._numbers += 1
                self._open += 1
                return task
        if unit not in self._history.offers.get(hit.url, ()):
            self._add(task)  # who else offers what is here is worth a line, not a request
        return None

    def deliver(self, task: Task, attempt: Attempt) -> None:
        """Hand in what came of a task; it is recorded as soon as all before it are."""
        with self._state:
            late = self._closed
            if not late:
                self._done[task.number] = (time.monotonic(), (task, attempt))
        if not late:
            self._commit()
        elif attempt.staged:
            attempt.staged.unlink(missing_ok=True)

    def hurry(self) -> None:
        """Record what has waited for its turn too long; called now and then."""
        with self._state:
            overdue = self._is_overdue()
        if overdue:
            self._syncing.submit(self._commit_or_halt)

    def halt(self, error: BaseException | None = None) -> None:
        """End the crawl: nothing new is asked."""
        with self._state:
            self.error = self.error or error
            self._stop.set()
            self._state.notify_all()

    def close(self) -> None:
        """Record all that is ready, also what would come after something that is still under way."""
        with self._state:
            self._closed = True
        # In another thread: Ctrl-C ends the waiting here, not the recording.
        last = self._syncing.submit(self._commit_all)
        try:
            last.result()
        except (OSError, CurateError):
            if self.error is None:
                raise  # else it is the disk that ended the crawl
        finally:
            self._syncing.shutdown()

    # -- recording

    def _add(self, entry: Task | Line) -> None:
        with self._state:
            self._done[self._numbers] = (time.monotonic(), entry)
            self._numbers += 1
        self._commit()

    def _commit(self) -> None:
        """Record all that is ready and next in order. One thread does it for all others, which need not wait."""
        while self._committing.acquire(blocking=False):
            try:
                self._record(self._ready())
            finally:
                self._committing.release()
            with self._state:
                if self._next not in self._done:
                    return

    def _commit_or_halt(self) -> None:
        try:
            self._commit()
        except BaseException as error:  # noqa: BLE001 - ends the crawl, and is raised again in the main thread
            self.halt(error)

    def _commit_all(self) -> None:
        with self._committing:
            self._record(self._ready())

    def _is_overdue(self) -> bool:
        oldest = next(iter(self._done.values()), None)
        return oldest is not None and time.monotonic() - oldest[0] > OVERDUE

    def _ready(self) -> list[Entry]:
        """What may be recorded now, in order: up to the first that is under way, or all when that takes too long."""
        with self._state:
            if self._closed or self._is_overdue():
                numbers = sorted(self._done)
                self._early.update(numbers)
            else:
                numbers = []
                while (number := self._next + len(numbers)) in self._done:
                    numbers.append(number)
                self._next += len(numbers)
            while self._next in self._early:
                self._early.remove(self._next)
                self._next += 1
            return [self._done.pop(number)[1] for number in numbers]

    def _record(self, ready: list[Entry]) -> None:
        """Sync the files, put them in place, sync their folder, write the lines: each once for all that is ready."""
        staged = [entry[1].staged for entry in ready if isinstance(entry, tuple) and entry[1].staged]
        list(self._syncing.map(sync_file, staged))
        lines: list[Line] = []
        fetched: list[Line] = []
        for entry in ready:
            if isinstance(entry, tuple):
                line = self._image_line(*entry)
                fetched.append(line)
                if line["path"]:
                    self._obtained[line["url"]] = line
                lines.append(line)
            elif not isinstance(entry, Task):
                lines.append(entry)
            elif earlier := self._obtained.get(entry.hit.url):
                lines.append(repeated_line(entry, earlier))
        kept = [self.workspace.image(line["path"]) for line in fetched if line["outcome"] == "kept"]
        sync_folders(file.parent for file in kept)
        append_log(self.workspace.sources, lines)
        self.lines += lines
        events: list[dict[str, Any]] = []
        with self._state:
            for line in fetched:
                self._open -= 1
                self._started -= 1
                if line["path"]:
                    self._counted.add(line["path"])
                self._counts.update(("asked", line["outcome"], *["fetched"] * bool(line["sha256"])))
                counts = {name: self._counts[name] for name in ("asked", "fetched", "rejected", "failed")}
                events.append({
                    "label": self.label, "outcome": line["outcome"], "reason": line["reason"],
                    "kept": len(self._counted), "limit": self.limit, "found": len(self._offered), **counts,
                })  # fmt: skip
            self._state.notify_all()
        if self._progress:
            for event in events:
                self._progress(event)

    def _image_line(self, task: Task, attempt: Attempt) -> Line:
        outcome, path = str(attempt.outcome), None
        if attempt.outcome == "obtained":
            staged, sha256 = attempt.staged, str(attempt.sha256)
            path = self._paths.get(sha256)
            if staged is None:
                outcome = "known"
            elif path and self._is_sound(path, sha256):
                outcome = "known"
                staged.unlink(missing_ok=True)
            elif path not in self._held and len(self._held) >= self.limit:
                staged.unlink(missing_ok=True)
                told = f"new bytes, and the class has its {self.limit} images"
                attempt, outcome, path = replace(attempt, reason="over_limit", detail=told), "rejected", None
            else:
                outcome = "kept"
                path = path or free_path(self.workspace, self.label, sha256, attempt.extension)
                put_in_place(staged, self.workspace.image(path))
                self._paths[sha256] = path
                self._sound.add(path)
                self._held.add(path)
        return image_line(task, attempt, label=self.label, outcome=outcome, path=path)

    def _is_sound(self, path: str, sha256: str) -> bool:
        """Whether a file is there and holds these bytes; looked into once in a run."""
        if path not in self._sound:
            file = self.workspace.image(path)
            if not file.is_file() or file_digest(file) != sha256:
                return False
            self._sound.add(path)
        return True
