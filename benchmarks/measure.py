"""The measuring pass beside its limit and its peers, on the same files in the same run.

    python benchmarks/measure.py --images DIR [--repeat N] [--peers-repeat N] [--peers-python PYTHON]

What is counted of ours is the whole stage as `curate measure` runs it on a data set that is new: sha256 and header of
every file (one reading), then its decoding with hashes and figures (another reading), the start of the workers, the log
of what is done, and the tables. What is not: noting where the files come from (`curate import`).

The limit is libjpeg-turbo decoding of the same bytes at the same reduced scale to grey, in the same pool of processes,
which read each file whole as ours do, and nothing else; files that are no JPEG are neither decoded nor counted. The
peers are imagededup's hashing (its own pool of processes) and cleanvision's full set of checks, in the environment of
another Python; their own time without the start of Python. Ours and the limit see every file N times, the peers as
often unless --peers-repeat says otherwise; rounds alternate, and the best of each counts. `peak_mib` is the peak of
this process and its workers together.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from PIL import Image

from curate.figures import SIDE
from curate.images import EXTENSIONS, ImageFailure, read_header
from curate.pipeline import run_measure
from curate.runner.local import LocalRunner
from curate.workspace import Workspace, append_log

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


def is_jpeg(file: Path) -> bool:
    """Whether the content is that of a JPEG."""
    try:
        return read_header(file).format in {"JPEG", "MPO"}
    except ImageFailure:
        return False


def decode(files: Sequence[Path]) -> int:
    """Decode JPEGs to grey at the smallest scale whose longer side has `SIDE` pixels; how many could be."""
    done = 0
    for file in files:
        with contextlib.suppress(OSError), Image.open(io.BytesIO(file.read_bytes())) as image:
            most = max(image.size)
            image.draft("L", (-(-SIDE * image.width // most), -(-SIDE * image.height // most)))
            image.load()
            done += 1
    return done


def limit(files: list[Path]) -> float:
    """Images a second that reading and decoding alone do, in the pool that ours use."""
    start = time.perf_counter()
    done = sum(LocalRunner().map_batches(decode, files, size=64))
    return done / (time.perf_counter() - start)


def new_data_set(folder: Path, files: list[Path], images: Path, repeat: int) -> Workspace:
    """A data set that holds every file so many times, each time in another folder, and was never measured."""
    lines = []
    for n in range(repeat):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / str(n)).symlink_to(images, target_is_directory=True)
        for file in files:
            path = f"images/{n}/{file.relative_to(images)}"
            lines.append({"kind": "image", "outcome": "kept", "origin": "imported", "path": path})
    workspace = Workspace(folder)
    append_log(workspace.sources, lines)
    return workspace


def ours(files: list[Path], images: Path, repeat: int) -> float:
    """Images a second of the measuring stage on a new data set."""
    with tempfile.TemporaryDirectory() as made:
        workspace = new_data_set(Path(made), files, images, repeat)
        start = time.perf_counter()
        record = run_measure(workspace)
        took = time.perf_counter() - start
        assert record.facts["images"] + record.facts["unreadable"] == len(files) * repeat
    if unreadable := record.facts["unreadable"]:
        print(f"{unreadable} files cannot be read")
    return len(files) * repeat / took


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
    parser.add_argument("--peers-repeat", type=int, help="how often the peers do; unset: as often")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many alternating rounds counts")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has the peers installed")
    options = parser.parse_args()
    images = options.images.resolve()
    files = files_of(images)
    jpegs = [file for file in files if is_jpeg(file)] * options.repeat
    if not jpegs:
        parser.error(f"no JPEGs below {options.images}")
    rates: dict[str, list[float]] = {"limit": [], "ours": [], **{name: [] for name in PEERS}}
    peak = 0.0
    with tempfile.TemporaryDirectory() as made:
        for n, file in enumerate(
            files * (options.peers_repeat or options.repeat)
        ):  # imagededup looks at one folder only
            (Path(made) / f"{n}{file.suffix}").symlink_to(file)
        for _ in range(options.rounds):
            rates["limit"].append(limit(jpegs))
            with Peak() as watched:
                rates["ours"].append(ours(files, images, options.repeat))
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
