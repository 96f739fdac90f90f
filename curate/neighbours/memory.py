"""What earlier runs saw in pairs of pictures, so that a few new images do not cost the alignment of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.runner import cores
from curate.workspace import replacing

VERSION = 1
"""Raised when pictures are compared in another way, so that what was remembered is forgotten."""

_BATCH = 128
_COLUMNS = {"first": pl.String, "second": pl.String, "similarity": pl.Float32}


class Memory:
    """Similarities by the SHA-256 of both files, kept in one file of the cache.

    Args:
        folder: of the cache; None remembers nothing beyond this run.
        name: of what is compared: similarities of one kind of greys say nothing of those of another.
    """

    def __init__(self, folder: Path | None, name: str = "pairs") -> None:
        self.file = folder / f"{name}-{VERSION}.parquet" if folder else None
        self._parts = [pl.DataFrame(schema=_COLUMNS)]
        self._saved = time.monotonic()
        self._pause = 30.0
        self._fresh = False
        if self.file and self.file.is_file():
            try:
                self._parts.append(pl.read_parquet(self.file).select(list(_COLUMNS)))
            except (OSError, pl.exceptions.PolarsError):  # a cache that cannot be read is made anew
                self.file.unlink(missing_ok=True)

    def look_up(self, digests: Sequence[str], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """What is known of pairs of pictures.

        Args:
            digests: of all pictures.
            pairs: (N, 2) places in `digests`.

        Returns:
            (N,) their similarity, NaN where nothing is known.
        """
        asked = self._keys(digests, pairs)
        self._parts = [pl.concat(self._parts)]
        known = asked.join(self._parts[0], on=["first", "second"], how="left", maintain_order="left")
        return known["similarity"].fill_null(float("nan")).to_numpy(writable=True)

    def add(self, digests: Sequence[str], pairs: NDArray[np.int64], similarity: NDArray[np.floating]) -> None:
        """Remember (N, 2) pairs that `look_up` did not know, and their (N,) similarity."""
        part = self._keys(digests, pairs).with_columns(similarity=pl.Series(similarity, dtype=pl.Float32))
        self._parts.append(part)
        self._fresh |= part.height > 0
        if time.monotonic() - self._saved >= self._pause:
            self.save()

    def save(self) -> None:
        """Write what is new; `add` calls this now and then, so that a crash costs little."""
        if not self.file or not self._fresh:
            return
        begin = time.monotonic()
        self._parts = [pl.concat(self._parts)]
        with replacing(self.file) as temporary:
            self._parts[0].write_parquet(temporary, compression="zstd", statistics=False)
        self._fresh = False
        self._saved = time.monotonic()
        self._pause = max(self._pause, 20 * (self._saved - begin))

    def compared(
        self, digests: Sequence[str], pairs: NDArray[np.int64],
        compare: Callable[[NDArray[np.int64]], NDArray[np.floating]], progress: Callable[[int, int], None],
    ) -> NDArray[np.float32]:  # fmt: skip
        """The similarity of pairs, as remembered or compared now, on all cores.

        Args:
            digests: of all pictures.
            pairs: (N, 2) places in `digests`.
            compare: (M, 2) pairs to their (M,) similarity; leaves the interpreter's lock most of the time.
            progress: called with (compared, to be compared).
        """
        scores = self.look_up(digests, pairs)
        todo = np.flatnonzero(np.isnan(scores))
        done = 0
        with ThreadPoolExecutor(cores()) as pool:
            parts = pool.map(lambda start: compare(pairs[todo[start : start + _BATCH]]), range(0, len(todo), _BATCH))
            for part in parts:
                here = todo[done : done + len(part)]
                scores[here] = part
                self.add(digests, pairs[here], part)
                done += len(part)
                progress(done, len(todo))
        self.save()
        return scores

    @staticmethod
    def _keys(digests: Sequence[str], pairs: NDArray[np.int64]) -> pl.DataFrame:
        names = pl.Series(list(digests), dtype=pl.String)
        one, other = names.gather(pairs[:, 0]), names.gather(pairs[:, 1])
        turned = one > other
        return pl.DataFrame({"first": other.zip_with(turned, one), "second": one.zip_with(turned, other)})
