"""Many generated images through the command line: import, measure, dedupe; time and peak memory of each verb.

    python benchmarks/large_run.py --n 200000 [--keep DIR]

Pictures are coarse random patterns of 160 x 120 pixels; one in a hundred is an earlier one encoded again. Afterwards
one in a hundred new pictures are added, and what bringing the data set up to date costs is told as a share of the first
time. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

SIZE = (160, 120)


def draw(folder: str, first: int, last: int) -> None:
    """Write pictures `first` to `last`."""
    for number in range(first, last):
        again = number % 100 == 99
        rng = np.random.default_rng(number - 1 if again else number)
        cells = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC)
        place = Path(folder) / f"class{number // 2 % 10}"
        place.mkdir(exist_ok=True)
        image.save(place / f"{number:07}.jpg", quality=70 if again else 85)


def generate(folder: Path, first: int, last: int) -> None:
    """Write them with all cores."""
    folder.mkdir(exist_ok=True)
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(draw, str(folder), n, min(n + 2000, last)) for n in range(first, last, 2000)]
        for job in jobs:
            job.result()


def run(home: Path, *arguments: str) -> tuple[float, float, str]:
    """Seconds and peak MiB of a verb with its workers, and what it printed."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).parent / "curate"), *arguments]
    with (home / "out.txt").open("w+") as out:
        child = subprocess.Popen(command, cwd=home, stdout=out, stderr=subprocess.DEVNULL)
        peak = 0.0
        while child.poll() is None:
            total = 0
            try:
                me = psutil.Process(child.pid)
                for process in (me, *me.children(recursive=True)):
                    total += process.memory_info().rss
            except psutil.Error:  # it has just ended
                pass
            peak = max(peak, total / 2**20)
            time.sleep(0.2)
        out.seek(0)
        said = out.read()
    if child.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {said[-500:]}")
    return time.perf_counter() - start, peak, said


def main() -> None:
    """Print what was measured; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--keep", type=Path, help="a folder to work in that stays")
    options = parser.parse_args()
    result: dict[str, float] = {"images": options.n}
    with tempfile.TemporaryDirectory() as made:
        home = (options.keep or Path(made)).resolve()
        home.mkdir(exist_ok=True)
        generate(home / "source", 0, options.n)
        for verb, *rest in (("import", str(home / "source")), ("measure",), ("dedupe",)):
            seconds, peak, said = run(home, verb, "large", *rest)
            print(f"{verb}: {seconds:.1f} s, {peak:.0f} MiB\n{said.rstrip()[:600]}")
            result |= {f"{verb}_seconds": round(seconds, 1), f"{verb}_peak_mib": round(peak)}
        generate(home / "more", options.n, options.n + options.n // 100)
        for verb, *rest in (("import", str(home / "more")), ("measure",), ("dedupe",)):
            seconds, *_ = run(home, verb, "large", *rest)
            share = seconds / result[f"{verb}_seconds"]
            print(f"{verb} after 1% more: {seconds:.1f} s, {share:.1%} of the first time")
            result[f"{verb}_again_seconds"] = round(seconds, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
