"""What the README says is run: its shell commands on a small data set, and its Python."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

README = Path(__file__).parents[1] / "README.md"
ELSEWHERE = {"make demo", "make review", "make setup", "source .venv/bin/activate"}
"""Commands that CI runs by themselves, or other tests do."""
SERVES = {"curate review pets"}
ASKS_THE_WEB = {"curate scrape pets"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line.split("  #")[0].split("    #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def shell(line: str, folder: Path) -> None:
    words = shlex.split(line)
    assert words[0] == "curate", line
    code = "from curate.cli import main; main()"
    environment = os.environ | {"CURATE_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words[1:]], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder to work in, with path/to/folder holding pictures of two classes, enough for a holdout of 200."""
    draw_from = random.Random(0)
    for label in ("cat", "dog"):
        for n in range(230):
            image = Image.new("RGB", (40, 40), tuple(draw_from.randrange(150, 256) for _ in range(3)))
            draw = ImageDraw.Draw(image)
            for _ in range(4):
                corner = draw_from.randrange(30), draw_from.randrange(30)
                box = (*corner, corner[0] + draw_from.randrange(4, 14), corner[1] + draw_from.randrange(4, 14))
                colour = tuple(draw_from.randrange(150) for _ in range(3))
                (draw.ellipse if label == "cat" else draw.rectangle)(box, fill=colour)
            file = tmp_path / "path/to/folder" / label / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
    # A copy, so that there is a near-duplicate to accept.
    Image.open(tmp_path / "path/to/folder/cat/1.png").convert("RGB").save(tmp_path / "path/to/folder/cat/copy.jpg")
    return tmp_path


def test_the_commands_are_those_that_this_file_knows() -> None:
    known = [line for line in commands() if line.startswith("curate ")]
    assert len(known) >= 10
    assert set(commands()) - set(known) <= ELSEWHERE
    assert set(known) >= SERVES | ASKS_THE_WEB


@pytest.mark.slow
def test_commands_work_one_after_the_other(pets: Path) -> None:
    new = [line for line in commands() if line.startswith("curate new")]
    for line in commands():
        if line in ELSEWHERE | SERVES | ASKS_THE_WEB or line in new:
            continue
        shell(line, pets)
        if line.startswith("curate import"):
            spec = pets / "datasets/pets/curate.toml"
            small = "\n[audit]\nimage_size = 32\n[train]\nsizes = [32]\nepochs_frozen = 1\nepochs = 0\nseeds = [0]\n"
            text = re.sub(r"\n\[train\].*?(?=\n\[)", small, spec.read_text(), flags=re.DOTALL)
            spec.write_text(text)
    assert (pets / "reports/pets/index.html").is_file()
    assert list((pets / "clean/pets").rglob("*.png"))
    python(pets)


def python(folder: Path) -> None:
    for block in blocks("python"):
        environment = os.environ | {"CURATE_HOME": str(folder)}
        subprocess.run([sys.executable, "-W", "ignore", "-c", block], env=environment, check=True, timeout=120)


def test_data_set_from_search_words(tmp_path: Path) -> None:
    (line,) = [line for line in commands() if line.startswith("curate new")]
    shell(line, tmp_path)
    assert 'queries = ["cat photo", "kitten"]' in (tmp_path / "datasets/pets/curate.toml").read_text()
