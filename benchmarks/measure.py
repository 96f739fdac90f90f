"""The measuring pass beside its limit and its peers, on the same files in the same run.

    python benchmarks/measure.py --images DIR [--repeat N] [--peers-python PYTHON]

The limit is libjpeg-turbo decoding at the same reduced scale to grey on all cores (files that are no JPEG are left
out); the peers are imagededup's hashing (its own pool of processes) and cleanvision's full set of checks, in the
environment of another Python. Ours and the limit see every file N times, the peers once more in each round; rounds
alternate, and the best of each counts. `peak_mib` is the peak of this process and its workers together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import psutil
from PIL import Image

from curate.figures import SIDE
from curate.images import EXTENSIONS
from curate.measure import measure
from curate.runner import cores
from curate.runner.local import LocalRunner
from curate.schema import MANIFEST

PEERS = {
    "imagededup": """
import sys, time, logging
logging.disable(logging.INFO)
from imagededup.methods import PHash
start = time.perf_counter()
found = PHash(verbose=False).encode_images(image_dir=sys.argv[1])
print("took", time.perf_counter() - start, len(found))
""",
    "cleanvision": """
import sys, time
from cleanvision import Imagelab
start = time.perf_counter()
lab = Imagelab(data_path=sys.argv[1])
lab.find_issues(verbose=False)
print("took", time.perf_counter() - start, len(lab.issues))
""",
}


def files_of(folder: Path) -> list[Path]:
    """Image files below a folder, in order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in {*EXTENSIONS.values(), ".jpeg"})


def decode(file: Path) -> None:
    """Decode a JPEG to grey at the smallest scale whose longer side has `SIDE` pixels."""
    with Image.open(file) as image:
        if image.format == "JPEG":
            most = max(image.size)
            image.draft("L", (-(-SIDE * image.width // most), -(-SIDE * image.height // most)))
            image.load()


def limit(files: list[Path]) -> float:
    """Images a second that decoding alone does, in threads: it leaves the interpreter's lock."""
    start = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(decode, files, chunksize=64):
            pass
    return len(files) / (time.perf_counter() - start)


def ours(files: list[Path]) -> float:
    """Images a second of the measuring pass, with the start of its workers."""
    seen: dict[Path, int] = {}
    rows = []
    for number, file in enumerate(files):
        seen[file] = seen.get(file, -1) + 1
        # The same file under another name each time: paths are the key of the tables.
        rows.append({"path": "./" * seen[file] + str(file.relative_to("/")), "sha256": str(number), "status": "ok"})
    table = pl.DataFrame(rows)
    manifest = table.select(
        *(pl.col(c) if c in table.columns else pl.lit(None, dtype=t).alias(c) for c, t in MANIFEST.columns.items())
    )
    start = time.perf_counter()
    measured, failures = 0, dict[str, str]()
    for features, reasons in measure(manifest, Path("/"), runner=LocalRunner()):
        measured, failures = features.height, reasons
    took = time.perf_counter() - start
    assert measured + len(failures) == len(files)
    if failures:
        print(f"{len(failures)} files cannot be read, such as {next(iter(failures))}")
    return len(files) / took


class Peak:
    """Watches the memory of this process and its children, every fifth of a second."""

    def __enter__(self) -> Peak:
        self.mib = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.2):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
            self.mib = max(self.mib, total / 2**20)


def peer(name: str, python: str, folder: Path) -> float | None:
    """Images a second of a peer, None where it is not installed there."""
    run = subprocess.run([python, "-c", PEERS[name], str(folder)], capture_output=True, text=True, check=False)
    told = [line.split() for line in run.stdout.splitlines() if line.startswith("took ")]
    if not told:
        print(f"{name}: left out: {(run.stderr.strip().splitlines() or ['no answer'])[-1][:120]}")
        return None
    return int(told[0][2]) / float(told[0][1])


def main() -> None:
    """Print what was measured; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--repeat", type=int, default=40, help="how often ours and the limit see each file")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many alternating rounds counts")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has the peers installed")
    options = parser.parse_args()
    files = files_of(options.images.resolve())
    if not files:
        parser.error(f"no images below {options.images}")
    many = files * options.repeat
    rates: dict[str, list[float]] = {"limit": [], "ours": [], **{name: [] for name in PEERS}}
    peak = 0.0
    with tempfile.TemporaryDirectory() as made:
        for n, file in enumerate(files * 5):  # imagededup looks at one folder only; five times lets the pools start
            (Path(made) / f"{n}{file.suffix}").symlink_to(file)
        for _ in range(options.rounds):
            rates["limit"].append(limit(many))
            with Peak() as watched:
                rates["ours"].append(ours(many))
            peak = max(peak, watched.mib)
            for name in PEERS:
                if rate := peer(name, options.peers_python, Path(made)):
                    rates[name].append(rate)
    for name, runs in rates.items():
        print(f"{name:>12}: {', '.join(f'{rate:.0f}' for rate in runs) or 'not measured'} images/s")
    best = {name: round(max(runs), 1) if runs else None for name, runs in rates.items()}
    result = {
        "images_per_s": best["ours"], "limit_images_per_s": best["limit"],
        "ratio_to_limit": round(max(rates["ours"]) / max(rates["limit"]), 3),
        "imagededup_images_per_s": best["imagededup"], "cleanvision_images_per_s": best["cleanvision"],
        "peak_mib": round(peak, 1),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
