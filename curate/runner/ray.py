"""Several machines: the same batches as Ray tasks. Files must be reachable under the same paths everywhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from curate.errors import EnvironmentMissing
from curate.runner import Item, Result, batches, died


class RayRunner:
    """Runs batches as Ray tasks; joins the cluster of $RAY_ADDRESS, else starts Ray on this machine."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError as error:
            msg = "Ray is not installed: `pip install 'curate[ray]'`, or use --runner local."
            raise EnvironmentMissing(msg) from error
        self._ray: Any = ray
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)

    def map_batches(
        self, function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, size: int,
        lost: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:  # fmt: skip
        """See `Runner.map_batches`; results come in order, with a bounded number of tasks under way."""
        task = self._ray.remote(function)
        limit = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        waiting: deque[tuple[Sequence[Item], Any]] = deque()
        for part in batches(items, size):
            waiting.append((part, task.remote(part)))
            if len(waiting) >= limit:
                yield from self._results(task, *waiting.popleft(), lost)
        while waiting:
            yield from self._results(task, *waiting.popleft(), lost)

    def _results(
        self, task: Any, part: Sequence[Item], promised: Any, lost: Callable[[Item], Result] | None
    ) -> list[Any]:
        """The result of a batch; where its workers die, which Ray has tried again by itself, those of its items."""
        deaths = (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError)
        try:
            return [self._ray.get(promised)]
        except deaths as error:
            if lost is None:
                raise died(part) from error
        found, dead = [], 0
        for item in part:
            try:
                found.append(self._ray.get(task.remote([item])))
            except deaths:
                found.append(lost(item))
                dead += 1
        if dead == len(part) > 1:
            raise died(part)
        return found
