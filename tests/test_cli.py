from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from curate import cli
from curate.dataset import open_dataset
from curate.errors import InputError

VERBS = (
    "new", "scrape", "import", "status", "doctor", "measure", "dedupe", "audit", "findings", "review",
    "contact-sheet", "decide", "undo", "log", "holdout", "class", "retrain", "predict", "report", "export", "verify",
    "cache", "run", "demo", "purge",
)  # fmt: skip
TINY = """
[audit]
image_size = 32
folds = 2
[train]
sizes = [32]
epochs_frozen = 1
epochs = 0
lr = 0.01
seeds = [0]
tta = false
"""


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, in this process."""
    out = CliRunner().invoke(cli.app, [str(a) for a in arguments], standalone_mode=False)
    if out.exception and not isinstance(out.exception, SystemExit):
        raise out.exception
    return out.return_value or out.exit_code or 0, out.stdout, out.stderr


def told(*arguments: str | Path) -> Any:
    """What the verb prints with --json: one object and nothing else."""
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    return json.loads(out)


def process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", "from curate.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Circles and squares, twelve of each; one square lies among the circles."""
    draw_from = random.Random(0)
    for label in ("circle", "square"):
        for n in range(12):
            image = Image.new("RGB", (48, 48), tuple(draw_from.randrange(200, 256) for _ in range(3)))
            draw = ImageDraw.Draw(image)
            side, left, top = draw_from.randrange(10, 24), draw_from.randrange(24), draw_from.randrange(24)
            shape = draw.ellipse if label == "circle" and n else draw.rectangle
            shape((left, top, left + side, top + side), fill=tuple(draw_from.randrange(140) for _ in range(3)))
            draw.line([(0, draw_from.randrange(48)), (47, draw_from.randrange(48))], fill=(90, 90, 90))
            file = tmp_path / "shapes" / label / f"{n:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
    return tmp_path / "shapes"


@pytest.fixture
def shapes_in(folder: Path, home: Path) -> str:
    run("import", "shapes", folder)
    spec = home / "datasets/shapes/curate.toml"
    text = spec.read_text()
    spec.write_text(text[: text.index("\n[train]")] + TINY)
    return "shapes"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_speaks_json(verb: str) -> None:
    done = process(verb, "--help")
    assert done.returncode == 0
    assert f"curate {verb}" in done.stdout
    assert "--json" in done.stdout


def test_there_are_no_other_verbs() -> None:
    names = {c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback}
    assert names == set(VERBS)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from curate.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'fastai', 'fiftyone', 'ray', 'polars', 'numpy', 'icrawler', 'rich'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_unknown_data_set_is_named_with_those_there_are(shapes_in: str) -> None:
    done = process("audit", "sapes")
    assert done.returncode == 2
    assert "'sapes'" in done.stderr
    assert "shapes" in done.stderr
    assert "Traceback" not in done.stderr


def test_malformed_spec_names_key_and_line_and_writes_nothing(shapes_in: str, home: Path) -> None:
    spec = home / "datasets/shapes/curate.toml"
    spec.write_text('title = "x"\n[audit]\nfolds = "many"\n')
    before = sorted(p for p in home.rglob("*") if not p.name.startswith("."))
    done = process("audit", "shapes")
    assert done.returncode == 2
    assert "audit.folds (line 3)" in done.stderr
    assert sorted(p for p in home.rglob("*") if not p.name.startswith(".")) == before


def test_wrong_usage_exits_with_2() -> None:
    assert process("decide", "x").returncode == 2
    assert process("no-such-verb").returncode == 2
    assert process("export", "x").returncode == 2


def test_folder_that_cannot_be_written_exits_with_3(tmp_path: Path, folder: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")  # not even root can make folders in a file
    done = process("import", "shapes", folder, CURATE_HOME=str(in_the_way))
    assert done.returncode == 3
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_in_use_exits_with_3(shapes_in: str) -> None:
    told("audit", shapes_in)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = process("review", shapes_in, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_stages_before_images_say_what_to_do(home: Path) -> None:
    run("new", "pets", "--class", "cat=cat photo", "--class", "dog=dog photo,puppy")
    assert open_dataset("pets").spec.classes[1].queries == ("dog photo", "puppy")
    for verb in ("measure", "dedupe", "audit", "retrain", "report"):
        done = process(verb, "pets")
        assert done.returncode == 2, verb
        assert "curate scrape" in done.stderr, verb
    for verb in ("review", "contact-sheet"):
        assert "curate audit pets" in process(verb, "pets").stderr


def test_import_of_nothing_makes_no_data_set(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        run("import", "pets", tmp_path / "nowhere")
    assert not (home / "datasets").exists()


def test_the_whole_way_of_imported_images(shapes_in: str, home: Path, tmp_path: Path) -> None:
    audited = told("audit", shapes_in)
    assert audited["check"]["facts"]["findings"]
    listed = told("findings", shapes_in)
    assert sum(listed["counts"].values()) == len(told("findings", shapes_in, "--top", "10000")["findings"])
    first, second = sorted(p for p in open_dataset(shapes_in).manifest["path"].to_list())[:2]

    made = told("decide", shapes_in, "--image", first, "--relabel", "square", "--why", "four corners")
    assert told("decide", shapes_in, "--image", first, "--relabel", "square")["made"] == []
    told("decide", shapes_in, "--image", second, "--drop")
    rows = {row["path"]: row for row in open_dataset(shapes_in).clean.rows.to_dicts()}
    assert (rows[first]["label"], rows[second]["why"]) == ("square", "dropped")
    assert told("log", shapes_in, "--image", first)["decisions"][0]["why"] == "four corners"
    told("undo", shapes_in, "--last")
    assert open_dataset(shapes_in).clean.images["path"].to_list().count(second) == 1
    told("undo", shapes_in, made["made"][0])
    assert all(line["kind"] == "retract" or not line["in_force"] for line in told("log", shapes_in)["decisions"])

    assert len(told("holdout", shapes_in, "--n", "8")["holdout"]) == 8
    facts = told("retrain", shapes_in)["facts"]
    assert facts["holdout"] == 8
    assert facts["images"]["raw"] == 24 - 8
    model = told("predict", shapes_in, home / "datasets/shapes" / first)
    assert model["predictions"][0]["predicted"] in {"circle", "square"}
    page = Path(told("report", shapes_in)["page"])
    assert "trusted images" in page.read_text()

    to = tmp_path / "clean"
    exported = told("export", shapes_in, "--format", "imagefolder", "--to", to)
    assert told("export", shapes_in, "--to", to)["unchanged"]
    assert exported["images"] == len(list(to.rglob("*.png")))
    assert told("verify", to)["problems"] == []
    next(to.rglob("*.png")).write_bytes(b"")
    assert process("verify", to).returncode == 1
    assert told("status", shapes_in)["next"].startswith("curate export")
    assert told("cache", shapes_in, "--clear")["bytes"] > 0
    assert not open_dataset(shapes_in).workspace.cache.exists()


def test_fail_on_is_a_test_for_ci(shapes_in: str) -> None:
    counts = told("audit", shapes_in)["check"]["facts"]["findings"]
    check, n = next(iter(counts.items()))
    assert process("findings", shapes_in, "--fail-on", f"{check}>{n}").returncode == 0
    assert process("findings", shapes_in, "--fail-on", f"{check}>{n - 1}").returncode == 1
    assert process("findings", shapes_in, "--fail-on", f"{check}>few").returncode == 2


def test_accept_is_one_batch_that_one_undo_takes_back(shapes_in: str, home: Path) -> None:
    told("audit", shapes_in)
    checks = open_dataset(shapes_in).findings["check"].unique().to_list()
    before = open_dataset(shapes_in).clean.rows
    made = told("decide", shapes_in, "--accept", checks[0])
    assert made["made"]
    assert not open_dataset(shapes_in).clean.rows.equals(before)
    told("undo", shapes_in, "--last")
    assert open_dataset(shapes_in).clean.rows.equals(before)


def test_decisions_from_a_table_are_all_or_nothing(shapes_in: str, tmp_path: Path) -> None:
    told("measure", shapes_in)
    paths = open_dataset(shapes_in).manifest["path"].to_list()[:2]
    table = tmp_path / "decisions.csv"
    table.write_text(f"path,decision,label\n{paths[0]},drop,\n{paths[1]},perhaps,\n")
    with pytest.raises(InputError, match="row 3"):
        run("decide", shapes_in, "--from", table)
    assert open_dataset(shapes_in).decisions.decisions == {}
    table.write_text(f"path,decision,label\n{paths[0]},drop,\n{paths[1]},relabel,square\n")
    assert len(told("decide", shapes_in, "--from", table)["made"]) == 2


def test_classes_are_merged_and_renamed_by_decisions(shapes_in: str) -> None:
    told("measure", shapes_in)
    with pytest.raises(InputError, match="use merge"):
        run("class", shapes_in, "rename", "circle", "square")
    told("class", shapes_in, "rename", "circle", "disc")
    assert set(open_dataset(shapes_in).clean.images["label"].to_list()) == {"disc", "square"}
    told("undo", shapes_in, "--last")
    told("class", shapes_in, "merge", "circle", "square")
    assert set(open_dataset(shapes_in).clean.images["label"].to_list()) == {"square"}


def test_run_does_what_is_missing(shapes_in: str, home: Path) -> None:
    first = told("run", shapes_in)
    assert {"measure", "audit", "check"} <= set(first["stages"])
    assert Path(first["page"]).is_file()
    second = told("run", shapes_in)
    assert all(stage["skipped"] for stage in second["stages"].values())
