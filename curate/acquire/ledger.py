"""The order of a crawl: what may be asked, and what becomes of it, independent of which thread is faster.

Images are fetched by many threads and recorded in the order in which the engines ranked them. An image is asked for
only when the limit of its class leaves room for it and for all that were asked before it; a page likewise. So nothing
is fetched that is not used, and the data set is the same in every run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from curate.acquire.answers import Answer, Hit
from curate.acquire.attempts import Attempt, Task, clean, image_line
from curate.acquire.history import History, Line
from curate.acquire.store import free_path, put_in_place, sync_file, sync_folders
from curate.config import ScrapeSpec
from curate.workspace import Workspace, append_log, now

Progress = Callable[[dict[str, Any]], None]
_SYNCING = 8
"""Files that are synced at once: a journal writes many for the price of one."""


class Ledger:
    """The order and the record of the crawl of one class; safe to share between threads.

    Args:
        workspace: the data set.
        spec: the scrape section of its spec.
        label: the class.
        limit: kept images at most.
        history: earlier attempts.
        refresh: ask again also for what is settled; the limit then counts what this run has confirmed.
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
        self._offered: set[str] = set()
        self._done: dict[int, tuple[Task, Attempt] | Line] = {}
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

    def may_start(self) -> bool:
        """Wait until there is room for one more image, were all that were started kept. Called in order of tasks."""
        with self._state:
            self._state.wait_for(lambda: self.is_over or len(self._counted) + self._started < self.limit)
            if self.is_over:
                return False
            self._started += 1
            return True

    def has(self, sha256: str) -> bool:
        """Whether the class has these bytes already, so that they need not be staged."""
        return self._paths.get(sha256) in self._counted

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
        with self._state:
            self._done[self._numbers] = line
            self._numbers += 1
        self._commit()

    def offer(self, engine: str, query: str, hit: Hit, *, license_filter: str = "") -> Task | None:
        """The task for a hit; None where its address is settled or was offered before."""
        hit = replace(
            hit, url=clean(hit.url), page_url=clean(hit.page_url), title=clean(hit.title)[:500],
            thumbnail=clean(hit.thumbnail), license=clean(hit.license)[:500],
        )  # fmt: skip
        with self._state:
            if hit.url in self._offered:
                return None
            self._offered.add(hit.url)
            if not self._refresh and self._history.is_settled(hit.url, self._spec):
                return None
            task = Task(number=self._numbers, engine=engine, query=query, hit=hit, license_filter=license_filter)
            self._numbers += 1
            self._open += 1
            return task

    def deliver(self, task: Task, attempt: Attempt) -> None:
        """Hand in what came of a task; it is recorded as soon as all before it are."""
        with self._state:
            late = self._closed
            if not late:
                self._done[task.number] = (task, attempt)
        if not late:
            self._commit()
        elif attempt.staged:
            attempt.staged.unlink(missing_ok=True)

    def halt(self, error: BaseException | None = None) -> None:
        """End the crawl: nothing new is asked."""
        with self._state:
            self.error = self.error or error
            self._stop.set()
            self._state.notify_all()

    def close(self) -> None:
        """Drop what could not be recorded in its order, because something before it is still under way."""
        with self._committing, self._state:
            self._closed = True
            for entry in self._done.values():
                if isinstance(entry, tuple) and entry[1].staged:
                    entry[1].staged.unlink(missing_ok=True)
            self._done.clear()
        self._syncing.shutdown()

    # -- recording

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

    def _ready(self) -> list[tuple[Task, Attempt] | Line]:
        ready = []
        with self._state:
            while self._next in self._done:
                ready.append(self._done.pop(self._next))
                self._next += 1
        return ready

    def _record(self, ready: list[tuple[Task, Attempt] | Line]) -> None:
        """Sync the files, put them in place, sync their folder, write the lines: each once for all that is ready."""
        staged = [entry[1].staged for entry in ready if isinstance(entry, tuple) and entry[1].staged]
        list(self._syncing.map(sync_file, staged))
        lines = [self._image_line(*entry) if isinstance(entry, tuple) else entry for entry in ready]
        kept = [self.workspace.image(line["path"]) for line in lines if line["outcome"] == "kept"]
        sync_folders(file.parent for file in kept)
        append_log(self.workspace.sources, lines)
        self.lines += lines
        events: list[dict[str, Any]] = []
        with self._state:
            for line in lines:
                if line["kind"] != "image":
                    continue
                self._open -= 1
                self._started -= 1
                if line["path"]:
                    self._counted.add(line["path"])
                self._counts[line["outcome"]] += 1
                events.append({
                    "label": self.label, "outcome": line["outcome"], "reason": line["reason"],
                    "kept": len(self._counted), "limit": self.limit, "found": len(self._offered),
                    "fetched": self._counts.total(), "rejected": self._counts["rejected"],
                    "failed": self._counts["failed"],
                })  # fmt: skip
            self._state.notify_all()
        if self._progress:
            for event in events:
                self._progress(event)

    def _image_line(self, task: Task, attempt: Attempt) -> Line:
        outcome, path = str(attempt.outcome), None
        if attempt.outcome == "obtained":
            assert attempt.sha256
            path = self._paths.get(attempt.sha256)
            if attempt.staged is None:
                outcome = "known"
            elif path and self.workspace.image(path).is_file():
                outcome = "known"
                attempt.staged.unlink(missing_ok=True)
            else:
                outcome = "kept"
                path = path or free_path(self.workspace, self.label, attempt.sha256, attempt.extension)
                put_in_place(attempt.staged, self.workspace.image(path))
                self._paths[attempt.sha256] = path
        return image_line(task, attempt, label=self.label, outcome=outcome, path=path)
