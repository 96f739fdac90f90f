"""How fast addresses become images, and what is lost: curate beside stock icrawler and img2dataset, in one run.

A loopback server in its own process offers distinct JPEGs; 2% of the addresses are faults of four kinds (404, 500, a
truncated JPEG, an HTML page). Each tool gets the same list, the same number of threads and no rate limit, and runs in
a process of its own, its start included; rounds are interleaved and the best of each counts. The rate is of good images
that are there at the end, byte for byte. `lost` are good images that curate has not kept, `wrong` are files of it that
are not exactly the bytes of a good image. img2dataset neither resizes nor encodes again, which is its fastest way. The
last line is JSON.

    python benchmarks/scrape.py --img2dataset-python /path/to/env/bin/python
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 256
FAULTS = ("404", "500", "truncated", "html")

CURATE = """
import sys
from pathlib import Path
from curate.acquire.scrape import scrape
from curate.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
with workspace.stage_lock("scrape"):
    scrape(workspace, workspace.spec())
"""

SPEC = """
[[classes]]
name = "all"
[scrape]
engines = ["urls"]
limit = {limit}
threads = {threads}
allow_private_hosts = true
per_host_interval = 0
per_host_connections = 1000
retries = 1
[scrape.endpoints]
urls = "list.txt"
"""

ICRAWLER = """
import logging, sys
from icrawler.builtin import UrlListCrawler
crawler = UrlListCrawler(
    downloader_threads=int(sys.argv[3]), storage={"root_dir": sys.argv[2]}, log_level=logging.CRITICAL
)
crawler.crawl(sys.argv[1])
"""

IMG2DATASET = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(
        url_list=sys.argv[1], output_folder=sys.argv[2], thread_count=int(sys.argv[3]),
        processes_count=int(sys.argv[4]), input_format="txt", output_format="files", resize_mode="no",
        disable_all_reencoding=True, retries=1, number_sample_per_shard=1000, enable_wandb=False,
    )
"""


def bodies(count: int, faults: float, seed: int = 0) -> dict[str, tuple[int, bytes, str]]:
    """Path to (status, body, content type); the faults are spread evenly over the list."""
    generator = np.random.default_rng(seed)
    pictures = []
    for _ in range(50):
        small = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        pictures.append(stream.getvalue())
    every = round(1 / faults) if faults else count + 1
    made = {}
    for n in range(count):
        picture = pictures[n % len(pictures)]
        mark = f"number {n}".encode()  # a comment in the header makes the bytes of each picture its own
        body = picture[:2] + b"\xff\xfe" + (len(mark) + 2).to_bytes(2, "big") + mark + picture[2:]
        answer = (200, body, "image/jpeg")
        if n % every == every - 1:
            answer = {
                "404": (404, b"gone", "text/plain"), "500": (500, b"no", "text/plain"),
                "truncated": (200, body[: len(body) // 2], "image/jpeg"),
                "html": (200, b"<!doctype html><html>no picture here</html>", "image/jpeg"),
            }[FAULTS[n // every % len(FAULTS)]]  # fmt: skip
        made[f"/img/{n}.jpg"] = answer
    return made


class _Answering(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as little of it as these clients need; cheap, so that the clients are measured."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers, self._buffer = answers, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._transport.write(self._answers.get(head.split(b" ", 2)[1], self._answers[b""]))
            if b"connection: close" in head.lower():
                self._transport.close()


def serve(pipe: Connection, count: int, faults: float) -> None:
    """Run the server until the process is ended; its port goes into `pipe`."""

    def packed(status: int, body: bytes, kind: str) -> bytes:
        head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def run() -> None:
        answers = {path.encode(): packed(*answer) for path, answer in bodies(count, faults).items()}
        answers[b""] = packed(404, b"gone", "text/plain")
        server = await asyncio.get_running_loop().create_server(
            lambda: _Answering(answers), "127.0.0.1", 0, backlog=512
        )
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Bench:
    """One list of addresses, and ways to fetch it."""

    def __init__(self, folder: Path, port: int, count: int, faults: float, threads: int) -> None:
        made = bodies(count, faults)
        urls = [f"http://127.0.0.1:{port}{path}" for path in made]
        good = {path: answer[1] for path, answer in made.items() if answer[0] == 200}
        self.good = {hashlib.sha256(body).hexdigest() for path, body in good.items() if _opens(body)}
        self.folder, self.count, self.threads = folder, count, threads
        self.list = folder / "list.txt"
        self.list.write_text("\n".join(urls))

    def curate(self, round_: int) -> tuple[float, Path]:
        """Seconds, and the folder of images."""
        root = self.folder / f"curate{round_}"
        root.mkdir()
        (root / "curate.toml").write_text(SPEC.format(limit=self.count, threads=self.threads))
        shutil.copy(self.list, root / "list.txt")
        return self._timed([sys.executable, "-c", CURATE, str(root)]), root / "images"

    def icrawler(self, round_: int) -> tuple[float, Path]:
        """As `curate`, for icrawler as it comes."""
        to = self.folder / f"icrawler{round_}"
        return self._timed([sys.executable, "-c", ICRAWLER, str(self.list), str(to), str(self.threads)]), to

    def img2dataset(self, round_: int, python: str) -> tuple[float, Path]:
        """As `curate`, for img2dataset on all cores, images kept at their size."""
        to, script = self.folder / f"img2dataset{round_}", self.folder / "img2dataset_run.py"
        script.write_text(IMG2DATASET)
        cores = os.cpu_count() or 1
        each = max(1, self.threads // cores)
        return self._timed([python, str(script), str(self.list), str(to), str(each), str(cores)]), to

    def _timed(self, command: list[str]) -> float:
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{command[:3]} failed:\n{done.stderr[-2000:]}")
        return seconds

    def judged(self, folder: Path) -> tuple[int, int, int]:
        """Files, good images lost, and files that are no good image's bytes."""
        suffixes = {".jpg", ".jpeg", ".png", ".webp"}
        found = [f for f in folder.rglob("*") if f.is_file() and f.suffix in suffixes]
        digests = [hashlib.sha256(f.read_bytes()).hexdigest() for f in found]
        return len(found), len(self.good - set(digests)), sum(d not in self.good for d in digests)


def _opens(body: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(body)) as image:
            image.load()
    except OSError:
        return False
    return True


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--faults", type=float, default=0.02, help="share of addresses that answer with a fault")
    parser.add_argument("--threads", type=int, default=16, help="of each tool, over all of its processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["curate", "icrawler", "img2dataset"], help="one tool")
    parser.add_argument("--img2dataset-python", default=sys.executable, help="python of an environment that has it")
    options = parser.parse_args()

    def has(python: str, module: str) -> bool:
        asked = [python, "-c", f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"]
        return subprocess.run(asked, check=False).returncode == 0

    tools = {"curate": True, "icrawler": importlib.util.find_spec("icrawler") is not None,
             "img2dataset": has(options.img2dataset_python, "img2dataset")}  # fmt: skip
    for name in (name for name, there in tools.items() if not there):
        print(f"{name} is not installed: skipped", file=sys.stderr)
    wanted = [name for name, there in tools.items() if there and options.only in {None, name}]
    rate: dict[str, float] = {}
    judged: dict[str, tuple[int, int, int]] = {}
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there, options.images, options.faults), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), here.recv(), options.images, options.faults, options.threads)
        for round_ in range(options.rounds):
            for name in wanted:
                more = (options.img2dataset_python,) if name == "img2dataset" else ()
                seconds, images = getattr(bench, name)(round_, *more)
                told = bench.judged(images)
                judged[name] = max(judged.get(name, told), told, key=lambda t: (t[1] + t[2], -t[0]))
                good = len(bench.good) - told[1]
                rate[name] = max(round(good / seconds, 1), rate.get(name, 0.0))
                print(f"{name:12} round {round_ + 1}: {seconds:6.2f} s, {good / seconds:6.0f} good images/s, "
                      f"{told[0]} files, {told[1]} lost, {told[2]} wrong", file=sys.stderr)  # fmt: skip
                shutil.rmtree(images.parent if name == "curate" else images)
    server.terminate()
    _, lost, wrong = judged.get("curate", (0, None, None))
    print(json.dumps({
        "images_per_s": rate.get("curate"), "icrawler_images_per_s": rate.get("icrawler"),
        "img2dataset_images_per_s": rate.get("img2dataset"), "lost": lost, "wrong": wrong,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
