"""One machine: in this process for little work, in a pool of processes for much."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice

from loky import ProcessPoolExecutor

from curate.runner import Item, Result, batches, cores, died


@dataclass(frozen=True, kw_only=True)
class LocalRunner:
    """Runs on this machine.

    Attributes:
        workers: processes; 1 stays in this one.
        pool_from: batches from which the start of a pool is worth it.
    """

    workers: int = field(default_factory=cores)
    pool_from: int = 16

    def map_batches(
        self, function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, size: int,
        lost: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:  # fmt: skip
        """See `Runner.map_batches`. At most two batches per worker are under way, so memory does not grow."""
        todo = deque(batches(items, size))
        if self.workers == 1 or len(todo) < self.pool_from:
            yield from map(function, todo)
            return
        while todo:
            try:
                yield from self._pooled(function, todo)
            except BrokenProcessPool:
                # One of the batches under way killed its worker, or the system did for want of memory.
                for _ in range(min(2 * self.workers, len(todo))):
                    yield from _alone(function, todo.popleft(), lost)

    def _pooled(
        self, function: Callable[[Sequence[Item]], Result], todo: deque[Sequence[Item]]
    ) -> Iterator[Result]:  # fmt: skip
        """Results in order; a batch leaves `todo` when its result is there."""
        waiting: deque[Future[Result]] = deque()
        with _processes(self.workers) as pool:
            try:
                while todo:
                    for part in islice(todo, len(waiting), 2 * self.workers):
                        waiting.append(pool.submit(function, part))
                    result = waiting.popleft().result()
                    todo.popleft()
                    yield result
            finally:
                for future in waiting:
                    future.cancel()


def _alone(
    function: Callable[[Sequence[Item]], Result], part: Sequence[Item], lost: Callable[[Item], Result] | None
) -> list[Result]:
    """A batch in a process that nothing else runs in; where that dies too, its items one by one."""
    with contextlib.suppress(BrokenProcessPool), _processes(1) as pool:
        return [pool.submit(function, part).result()]
    found: list[Result] = []
    dead = 0
    rest = deque(part if lost else ())
    while rest:
        with contextlib.suppress(BrokenProcessPool), _processes(1) as pool:
            while rest:
                found.append(pool.submit(function, [rest[0]]).result())
                rest.popleft()
        if rest and lost:
            found.append(lost(rest.popleft()))
            dead += 1
    if lost is None or dead == len(part) > 1:  # it is not one of them: no worker can live here
        raise died(part)
    return found


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    # fork is unsafe once threads run (torch, polars), and the standard library's other ways run the main script of
    # whoever calls us again in every worker: loky starts clean processes without it.
    pool = ProcessPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(kill_workers=True)  # nobody waits for what they still do; to let them end takes half a second
