"""SIGKILL at random moments: whatever was under way, the final data set equals one that nobody disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from curate.manifest import scan

IMAGES = 500
KILLS = 20
DATASETS = 4

CHILD = """
import sys
from pathlib import Path
from curate.acquire.scrape import scrape
from curate.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
with workspace.stage_lock("scrape"):
    scrape(workspace, workspace.spec())
"""


@pytest.mark.slow
def test_twenty_kills_and_nothing_is_lost_or_different(server: Any, scraping: Any, make_picture: Any) -> None:
    def routed(n: int) -> str:
        if n % 9 == 4:
            return str(server.fixed(f"/img/{n}", b"no picture"))
        return str(server.fixed(f"/img/{n}", make_picture(n - 3 if n % 7 == 3 else n)))

    listed = [routed(n) for n in range(IMAGES)]
    more = f"limit = {IMAGES}\nthreads = 8"
    whole = scraping("whole", more=more).lists(*listed)
    whole.run()
    compared = ("path", "sha256", "bytes", "label", "source", "status")
    expected = scan(whole.workspace).select(compared)
    assert expected.height > IMAGES * 0.6
    draw = random.Random(7)
    killed = 0
    for number in range(DATASETS):
        data = scraping(f"torn{number}", more=more).lists(*listed)
        for _ in range(KILLS // DATASETS):
            before, moment = server.images_asked(), draw.randint(1, IMAGES // (KILLS // DATASETS))
            child = subprocess.Popen([sys.executable, "-c", CHILD, str(data.workspace.root)])
            while server.images_asked() - before < moment and child.poll() is None:
                time.sleep(0.0005)
            time.sleep(draw.random() / 50)
            child.send_signal(signal.SIGKILL)
            killed += child.wait() == -signal.SIGKILL
        known = {line["url"] for line in data.attempts}
        before = server.images_asked()
        data.run()
        assert scan(data.workspace).select(compared).equals(expected)
        assert data.files == whole.files  # no temporary file is left either
        for file in data.files:
            one, other = (d.workspace.image("images/" + file).read_bytes() for d in (data, whole))
            assert one == other
        assert {line["url"] for line in data.attempts} == {line["url"] for line in whole.attempts}
        assert server.images_asked() - before == IMAGES - len(known)  # nothing that was recorded is asked for twice
    assert killed >= KILLS * 0.7  # the others were through before the moment came
