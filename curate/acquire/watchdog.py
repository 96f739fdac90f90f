"""An end to answers that drip: every byte renews a socket's timeout, so only a clock outside of it can end them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from curate.acquire.failures import FetchFailure

TICK = 0.25


@dataclass
class _Answer:
    deadline: float
    sock: socket.socket | None = None
    cut: bool = False


class Watchdog:
    """Cuts connections whose answer, from its first header to its last byte, takes too long."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answer] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, patience: float) -> Iterator[None]:
        """Watch the answer that this thread waits for, for `patience` seconds.

        Raises:
            TimeoutError: it was cut; a `FetchFailure` from inside is passed on, renamed to `timeout`.
        """
        answer = _Answer(time.monotonic() + patience)
        with self._lock:
            self._answers[threading.get_ident()] = answer
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
        too_long = f"the answer took more than {patience:.0f} s"
        try:
            yield
        except FetchFailure as failure:
            if answer.cut:
                failure.outcome, failure.reason, failure.detail = "failed", "timeout", too_long
            raise
        except Exception as error:
            if answer.cut:
                raise TimeoutError(too_long) from error
            raise
        finally:
            with self._lock:
                del self._answers[threading.get_ident()]
        if answer.cut:
            raise TimeoutError(too_long)

    def attach(self, sock: socket.socket | None) -> None:
        """Tell the socket on which this thread waits for its answer."""
        with self._lock:
            if answer := self._answers.get(threading.get_ident()):
                answer.sock = sock

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(TICK):
            now = time.monotonic()
            with self._lock:
                late = [a for a in self._answers.values() if a.deadline < now and a.sock and not a.cut]
                for answer in late:
                    answer.cut = True
                    with contextlib.suppress(OSError):
                        # Not the method of an SSL socket, which forgets its state under the hands of who reads.
                        socket.socket.shutdown(answer.sock, socket.SHUT_RDWR)  # type: ignore[arg-type]
