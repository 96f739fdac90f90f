"""Near pairs of random 64-bit hashes with planted ones: time, memory and exactness, beside faiss.

    python benchmarks/near_duplicates.py --n 1000000 --max-distance 6 [--skew]

The time is that of collapsing identical hashes and of `near_pairs`, the memory that of the whole process up to then.
`missed` counts planted pairs that were not found, and pairs of some hashes that were compared with all others by brute
force; `invented` counts pairs that are farther apart than asked, or named twice. faiss is asked for a slice of the
hashes against all of them where the whole would take too long, and its time scaled up.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from curate.neighbours import Pairs, near_pairs

PLANTED = 20_000
Hashes = NDArray[np.uint64]


def flipped(values: Hashes, counts: NDArray[np.integer], rng: np.random.Generator) -> Hashes:
    """Each value with so many different bits turned over."""
    out = values.copy()
    bits = rng.random((len(values), 64)).argsort(axis=1).astype(np.uint64)
    for k in range(int(counts.max(initial=0))):
        chosen = counts > k
        out[chosen] ^= np.uint64(1) << bits[chosen, k]
    return out


def skewed(n: int, rng: np.random.Generator) -> Hashes:
    """A tenth of identical hashes, clusters of three thousand, and nearly blank pages (one or two bits set)."""
    run = np.repeat(rng.integers(0, 2**64, max(1, n // 10_000), dtype=np.uint64), 1_000)[: n // 10]
    centres = np.repeat(rng.integers(0, 2**64, 5, dtype=np.uint64), 3_000)
    clusters = flipped(centres, rng.integers(0, 5, len(centres)), rng)
    one = np.uint64(1) << np.arange(64, dtype=np.uint64)
    return np.concatenate([run, clusters, np.repeat(one, 100), (one[:, None] | one[None, :]).ravel()])


def data(n: int, limit: int, skew: bool, rng: np.random.Generator) -> tuple[Hashes, Hashes, Hashes]:
    """N shuffled hashes, and the two halves of the planted pairs among them."""
    planted = min(PLANTED, n // 4)
    first = rng.integers(0, 2**64, planted, dtype=np.uint64)
    second = flipped(first, np.arange(planted) % (limit + 1), rng)
    special = skewed(n, rng) if skew else np.empty(0, dtype=np.uint64)
    room = max(0, n - 2 * planted - len(special))
    hashes = np.concatenate([rng.integers(0, 2**64, room, dtype=np.uint64), first, second, special])
    rng.shuffle(hashes)
    return hashes, first, second


def exactness(
    hashes: Hashes, found: Pairs, planted: tuple[Hashes, Hashes], limit: int, rng: np.random.Generator, rows: int = 200,
) -> tuple[int, int]:  # fmt: skip
    """How many pairs are missed, and how many invented; `hashes` are sorted and distinct."""
    i, j, distance = found
    n = np.int64(len(hashes))
    keys = i * n + j
    true = np.bitwise_count(hashes[i] ^ hashes[j])
    invented = int(((true > limit) | (true != distance) | (i >= j)).sum()) + len(keys) - len(np.unique(keys))
    a, b = (np.searchsorted(hashes, half) for half in planted)
    wanted = (np.minimum(a, b) * n + np.maximum(a, b))[a != b]
    for row in rng.integers(0, n, rows).tolist():
        near = np.flatnonzero(np.bitwise_count(hashes ^ hashes[row]) <= limit)
        near = near[near != row]
        wanted = np.append(wanted, np.minimum(near, row) * n + np.maximum(near, row))
    return int((~np.isin(np.unique(wanted), keys)).sum()), invented


def faiss_seconds(hashes: Hashes, limit: int, kind: str, budget: float) -> tuple[float, float]:
    """Seconds that faiss takes for all hashes, and the share of them that was really asked for."""
    import faiss

    codes = hashes.view(np.uint8).reshape(-1, 8)
    start = time.perf_counter()
    if kind == "flat":
        index = faiss.IndexBinaryFlat(64)
    else:  # four keys of 16 bits: one of them has at most a quarter of the differences
        index = faiss.IndexBinaryMultiHash(64, 4, 16)
        index.nflip = limit // 4
    index.add(codes)
    building = time.perf_counter() - start

    def ask(count: int) -> float:
        start = time.perf_counter()
        index.range_search(codes[:count], limit + 1)  # faiss leaves out the radius itself
        return time.perf_counter() - start

    return building + scaled(ask, len(codes), budget, share := [0.0]), share[0]


def scaled(ask: Callable[[int], float], n: int, budget: float, share: list[float]) -> float:
    """The time of `ask(n)`, from the largest count that fits the budget of seconds."""
    count = min(n, 1_000)
    took = ask(count)
    larger = min(n, int(count * budget / max(took, 1e-6)))
    if larger > 2 * count:
        count = larger
        took = ask(count)
    share[0] = count / n
    return took * n / count


def main() -> None:
    """Print what was measured; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--max-distance", type=int, default=6)
    parser.add_argument("--skew", action="store_true", help="a tenth identical, clusters of thousands, blank pages")
    parser.add_argument("--repeat", type=int, default=1, help="the best of several runs")
    parser.add_argument("--faiss-budget", type=float, default=10.0, help="seconds for each index; 0 leaves faiss out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    limit = options.max_distance
    raw, *planted = data(options.n, limit, options.skew, rng)
    seconds = []
    for _ in range(options.repeat):
        start = time.perf_counter()
        hashes = np.sort(raw)  # numpy.unique takes forty times as long
        hashes = hashes[np.append(True, hashes[1:] != hashes[:-1])]
        found = near_pairs(hashes, limit)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(raw):,} hashes, {len(hashes):,} of them distinct; runs: {', '.join(f'{s:.2f}' for s in seconds)} s")
    missed, invented = exactness(hashes, found, (planted[0], planted[1]), limit, rng)
    peers: dict[str, float | None] = {"flat": None, "multihash": None}
    for kind in peers if options.faiss_budget else ():
        try:
            took, share = faiss_seconds(hashes, limit, kind, options.faiss_budget)
        except ImportError:
            print("faiss is not installed: left out")
            break
        said = "" if share == 1 else f", scaled up from the first {share:.2%} of the hashes against all"
        print(f"faiss {kind}: {took:.1f} s{said}")
        peers[kind] = round(took, 2)
    result = {
        "seconds": round(min(seconds), 3), "pairs": len(found[0]), "peak_mib": round(peak, 1),
        "faiss_flat_seconds": peers["flat"], "faiss_multihash_seconds": peers["multihash"],
        "missed": missed, "invented": invented,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
