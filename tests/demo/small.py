"""The sample at its smallest: the first pictures of each class, tiny pictures, one epoch. Run by tests as a process."""

from __future__ import annotations

import contextlib
import sys

from curate.dataset import new_dataset
from curate.demo import loop
from curate.errors import InputError

LIMIT = 24
CHANGES = {
    "image_size = 224": "image_size = 64", "regularisation = 0.0003": "regularisation = 0.003",
    "sizes = [96, 128]": "sizes = [32, 48]", "epochs_frozen = 2": "epochs_frozen = 1", "\nepochs = 3": "\nepochs = 1",
    "seeds = [0, 1, 2]": "seeds = [0, 1]", "budget = 300": "budget = 40",
}  # fmt: skip


def small_spec() -> str:
    """The sample's curate.toml, made small."""
    text = loop.spec_text()
    for old, new in CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def run(**options: object) -> loop.Demo:
    """The loop on the small sample; made where it is not there."""
    with contextlib.suppress(InputError):  # it is there already
        new_dataset(loop.NAME, spec=small_spec())
    return loop.run(limit_per_class=LIMIT, **options)  # type: ignore[arg-type]


if __name__ == "__main__":

    def tell(stage: str, what: str, done: int, total: int) -> None:
        sys.stdout.write(f"{stage}: {what}\n")
        sys.stdout.flush()

    run(progress=tell, done=lambda record: tell(record.stage, "done", 0, 0))
