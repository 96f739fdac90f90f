"""The spec of a data set: `curate.toml`, read into frozen pydantic models.

Every error names the file, the key and, where it can be told, the line.
"""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from curate.errors import SpecError

Engine = Literal["google", "baidu", "bing", "flickr", "urls"]
Filter = str | tuple[date, date]
"""What an engine is asked to narrow a search by: a word, or for `date` also the first and the last day."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=16, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

CLASS_NAME = re.compile(r"[^\W_](?:[\w .+-]*[\w+-])?")
"""A class name is also a folder name: letters, digits, space, and `. _ + -` inside."""


class Section(BaseModel):
    """Base of every table of the spec: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassSpec(Section):
    """One class: its name (also the folder), what people call it, and what to search for."""

    name: str
    title: str = ""
    queries: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _name_is_a_folder_name(self) -> ClassSpec:
        if not CLASS_NAME.fullmatch(self.name):
            msg = f"class name {self.name!r} cannot be a folder name: use letters, digits, space, . _ + -"
            raise ValueError(msg)
        return self

    @property
    def shown(self) -> str:
        """The name with its title, as people read it."""
        return f"{self.name} {self.title}".strip()


class ScrapeSpec(Section):
    """How images are obtained from search engines."""

    engines: tuple[Engine, ...] = ("google", "baidu")
    limit: int = Field(default=300, ge=1, description="kept images per class")
    endpoints: Literal["demo"] | dict[Engine, str] = Field(default_factory=dict)
    allow_private_hosts: bool = False
    filters: dict[str, Filter | dict[str, Filter]] = Field(default_factory=dict, description="for all, or per engine")
    threads: int = Field(default=4, ge=1, le=64)
    timeout: float = Field(default=15.0, gt=0, description="seconds to connect, and between bytes")
    retries: int = Field(default=2, ge=0, le=10)
    per_host_interval: float = Field(default=0.1, ge=0, description="seconds between requests to one host")
    per_host_connections: int = Field(default=4, ge=1, description="requests to one host at once")
    max_bytes: int = Field(default=30_000_000, ge=1, description="largest body of one image")
    max_total_bytes: int | None = Field(default=None, ge=1, description="bytes of one run; unset: no bound")
    max_minutes: float | None = Field(default=None, gt=0, description="minutes of one run; unset: no bound")
    max_pixels: int = Field(default=100_000_000, ge=1, le=178_956_970, description="larger pictures are rejected")
    min_side: int = Field(default=16, ge=1, description="pixels; smaller pictures are rejected")
    respect_robots: bool = True
    operator: str = Field(default="", description="how a site can reach you: goes into the User-Agent")


class DedupeSpec(Section):
    """When two images are near-duplicates, and which of a group is kept."""

    max_distance: int = Field(default=10, ge=0, le=16, description="bits of phash that a candidate may differ by")
    min_similarity: Fraction = Field(default=0.90, description="pixel correlation that makes a candidate a duplicate")
    thorough: bool = Field(default=False, description="also crops, turns, mirror images, frames, captions, watermarks")
    min_aligned: Fraction = Field(default=0.65, description="similarity after alignment, where it is thorough")
    keeper: tuple[Literal["largest", "sharpest", "first"], ...] = ("largest", "sharpest", "first")


class ChecksSpec(Section):
    """Limits of the checks. Measuring never uses them, so changing them costs nothing."""

    dark: float = Field(default=0.08, description="mean brightness, 0 to 1, below which a picture is dark")
    bright: float = Field(default=0.985, description="mean brightness above which a picture is bright")
    low_contrast: float = Field(default=0.02, description="standard deviation of brightness, 0 to 1")
    low_information: float = Field(default=1.0, description="bits of entropy of the grey histogram")
    blurry: float = Field(default=0.0015, description="variance of the Laplacian at 120 px, brightness in 0 to 1")
    odd_aspect: float = Field(default=4.0, ge=1, description="longer side over shorter side")
    tiny: int = Field(default=32, ge=1, description="pixels of the shorter side")
    greyscale: float = Field(default=0.01, description="mean spread of the channels, 0 to 1; see `unusual`")
    mostly_border: Fraction = Field(default=0.6, description="share of the area in uniform margins; see `unusual`")
    unusual: Fraction = Field(default=0.1, description="grey or framed pictures are told where at most this share is")
    style: Fraction = Field(default=0.3, description="any other fault of more pictures is the set's style: told once")
    confident_mistake: Fraction = 0.9
    ambiguous: tuple[Fraction, Fraction] = (0.5, 0.6)
    label_error: Fraction = Field(default=0.5, description="p_wrong from which a label is reported")
    outlier: Fraction = Field(default=0.03, description="share of images whose distance is reported at most")
    outlier_neighbours: int = Field(default=30, ge=1, description="more than odd pictures of one kind")


class AuditSpec(Section):
    """How out-of-fold predictions are made."""

    mode: Literal["auto", "probe", "finetune"] = "auto"
    backbone: str = "efficientnet_lite0"
    weights: str = Field(default="", description="a file of weights; empty: the backbone's own")
    image_size: int = Field(default=160, ge=32, le=1024)
    folds: int = Field(default=5, ge=2, le=50)
    repeats: int = Field(default=3, ge=1, le=20, description="of a probe, each with other folds; the mean counts")
    regularisation: float = Field(default=0.0006, gt=0, description="C of the logistic regression")
    seed: Seed = 0


class AugmentSpec(Section):
    """What training may do to a picture. No flips by default: mirrored characters do not exist."""

    flip: bool = False
    max_rotate: float = Field(default=6.0, ge=0, le=180)
    max_zoom: float = Field(default=1.1, ge=1)
    max_lighting: Fraction = 0.2
    max_warp: float = Field(default=0.1, ge=0)
    mixup: Fraction = 0.0


class TrainSpec(Section):
    """The model that proves the gain, and that is exported."""

    backbone: str = "efficientnet_lite0"
    weights: str = ""
    sizes: tuple[Side, ...] = Field(default=(128, 256), min_length=1, description="progressive resizing, in pixels")
    epochs_frozen: int = Field(default=3, ge=0)
    epochs: int = Field(default=4, ge=0, description="unfrozen epochs at each size")
    freeze_early: bool = Field(default=False, description="keep the early layers frozen: halves the time on a CPU")
    batch_size: int = Field(default=32, ge=2)
    lr: float | None = Field(default=None, gt=0, description="base rate; unset: lr_find's valley")
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    tta: bool = True

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            msg = "the same seed twice is the same model twice"
            raise ValueError(msg)
        return seeds


class ReviewSpec(Section):
    """How much is put before a person."""

    budget: int = Field(default=300, ge=1)
    probes: float = Field(default=0.1, ge=0, lt=1, description="share of random images mixed into the queue")


class Spec(Section):
    """Everything that makes a data set what it is; the root of `curate.toml`."""

    title: str = ""
    description: str = ""
    classes: tuple[ClassSpec, ...] = ()
    scrape: ScrapeSpec = ScrapeSpec()
    dedupe: DedupeSpec = DedupeSpec()
    checks: ChecksSpec = ChecksSpec()
    audit: AuditSpec = AuditSpec()
    augment: AugmentSpec = AugmentSpec()
    train: TrainSpec = TrainSpec()
    review: ReviewSpec = ReviewSpec()

    @model_validator(mode="after")
    def _class_names_are_unique(self) -> Spec:
        names = [c.name for c in self.classes]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            msg = f"classes named twice: {', '.join(twice)}"
            raise ValueError(msg)
        return self

    @property
    def class_titles(self) -> dict[str, str]:
        """Class name to what people read."""
        return {c.name: c.shown for c in self.classes}


def parse_spec(text: str, *, where: str = "curate.toml") -> Spec:
    r"""Read a spec from TOML text.

    Args:
        text: the content of a `curate.toml`.
        where: the name used in error messages.

    Raises:
        SpecError: the text is no TOML, or a key or value is not allowed; key and line are named.

    Example:
        >>> parse_spec('[[classes]]\nname = "cat"').classes[0].name
        'cat'
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{where} is not valid TOML: {error}. Mend that line and run again."
        raise SpecError(msg) from error
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        problems = [_describe(problem, text) for problem in error.errors()]
        msg = f"{where}: " + "; ".join(problems)
        raise SpecError(msg) from error


def read_spec(path: Path) -> Spec:
    """Read the spec at `path`; raises `SpecError` as `parse_spec` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise SpecError(msg) from error
    return parse_spec(text, where=str(path))


def _describe(problem: Any, text: str) -> str:
    loc = [part for part in problem["loc"] if not (isinstance(part, str) and part.startswith(("dict[", "literal[")))]
    key = ".".join(str(part) for part in loc) or "(root)"
    line = _line_of(loc, text)
    place = f" (line {line})" if line else ""
    if problem["type"] == "extra_forbidden":
        return f"{key}{place}: there is no such key; see the README for those there are"
    given = "" if isinstance(problem.get("input"), dict) else f", not {problem.get('input')!r}"
    return f"{key}{place}: {problem['msg'].removeprefix('Value error, ')}{given}"


_KEY = r"(?:\"[^\"]*\"|'[^']*'|[\w-]+)"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_KEY, dotted)]


def _line_of(loc: list[str | int], text: str) -> int | None:
    """The line of the deepest part of `loc` that is written out in `text`; None where none is."""
    table: list[str] = []
    counts: dict[str, int] = {}
    best: tuple[int, int] | None = None
    wanted = [str(part) for part in loc]
    fence = ""
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if fence:  # inside a string of several lines, which may look like anything
            fence = "" if fence in line else fence
            continue
        if header := re.match(rf"\[\[?\s*({_DOTTED})\s*\]", line):
            table = _parts(header[1])
            if line.startswith("[["):
                name = ".".join(table)
                table.append(str(counts.get(name, 0)))
                counts[name] = counts.get(name, 0) + 1
            path = table
        elif assigned := re.match(rf"({_DOTTED})\s*=", line):
            path = table + _parts(assigned[1])
            fence = next((mark for mark in ('"""', "'''") if line.count(mark) == 1), "")
        else:
            continue
        if path == wanted[: len(path)] and (best is None or len(path) > best[0]):
            best = (len(path), number)
    return best[1] if best else None
