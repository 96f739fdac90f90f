"""Which picture is shown where: classes, planted faults, ranks and addresses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from curate.demo._brush import CLASSES

PER_CLASS = 300
EARLY = 20  # the first ranks of each class, which hold an instance of every fault

# (true, given): how many pictures of one style are shown as another
WRONG = {
    ("running", "cursive"): 61,
    ("cursive", "running"): 54,
    ("regular", "running"): 7,
    ("running", "regular"): 8,
    ("cursive", "regular"): 3,
    ("regular", "cursive"): 2,
}
CROSS = {
    ("running", "cursive"): 6,
    ("cursive", "running"): 5,
    ("regular", "running"): 1,
    ("running", "regular"): 4,
    ("cursive", "regular"): 2,
}
NEAR = ("reencoded", "resized", "brightened", "watermarked")
BROKEN = ("truncated_jpeg",) * 6 + ("html",) * 4 + ("empty",) * 4 + ("one_pixel",) * 4
OFF_TOPIC = ("kana",) * 3 + ("seal",) * 4 + ("drawing",) * 7 + ("blank",) * 4
FAILING = ("404",) * 8 + ("500",) * 5 + ("refused",) * 5
RETRIED = 9  # 503 to the first request

# What stands among the first ranks of each class, by the class it is given.
EARLY_FAULTS = {
    "regular": ("exact_duplicate", "near_duplicate", "wrong_label", "two_styles", "off_topic", "broken", "broken"),
    "running": (
        "cross_class",
        "near_duplicate",
        "near_crop",
        *("wrong_label",) * 4,
        "two_styles",
        "off_topic",
        "broken",
    ),
    "cursive": ("exact_duplicate", "near_duplicate", *("wrong_label",) * 4, "two_styles", "off_topic", "broken"),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One address that the search offers.

    Attributes:
        given: the class whose query returns it.
        true: the class that it shows; empty where it shows none.
        fault: the planted fault, empty for an ordinary picture.
        detail: which kind of the fault.
        of: index of the counterpart of a duplicate, -1 for none.
        answer: ``ok``, ``404``, ``503_once``, ``500`` or ``refused``.
        early: stands among the first ranks.
        second: the other style of a picture that shows two.
    """

    given: str
    true: str
    fault: str = ""
    detail: str = ""
    of: int = -1
    answer: str = "ok"
    early: bool = False
    second: str = ""


@dataclass
class _Draft:
    entries: list[Entry] = field(default_factory=list)
    free: dict[str, list[int]] = field(default_factory=dict)  # ordinary pictures that are nobody's original yet

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def copy_of(self, style: str, given: str, fault: str, detail: str = "") -> None:
        self.add(Entry(given=given, true=style, fault=fault, detail=detail, of=self.free[style].pop()))


def plan(rng: np.random.Generator) -> list[Entry]:
    """Return all entries: 300 pictures a class with the planted faults, and the failing addresses.

    A counterpart (``of``) carries no fault and is the counterpart of one entry only.
    """
    draft = _Draft()
    per_fault = {
        "exact_duplicate": 15,
        "near_duplicate": 18,
        "near_crop": 6,
        "two_styles": 9,
        "off_topic": 6,
        "broken": 6,
    }
    for given in CLASSES:
        planted = sum(per_fault.values())
        planted += sum(n for (_, g), n in (*WRONG.items(), *CROSS.items()) if g == given)
        start = len(draft.entries)
        draft.entries += [Entry(given=given, true=given)] * (PER_CLASS - planted)
        draft.free[given] = list(range(start, len(draft.entries)))
    off_topic = [str(kind) for kind in rng.permutation(OFF_TOPIC)]
    broken = [str(kind) for kind in rng.permutation(BROKEN)]
    near = [NEAR[k % 4] for k in range(3 * per_fault["near_duplicate"])]
    for given in CLASSES:
        for _ in range(per_fault["exact_duplicate"]):
            draft.copy_of(given, given, "exact_duplicate", "same bytes at another address")
        for _ in range(per_fault["near_duplicate"]):
            draft.copy_of(given, given, "near_duplicate", near.pop())
        for _ in range(per_fault["near_crop"]):
            draft.copy_of(given, given, "near_crop", "cropped")
        for k in range(per_fault["two_styles"]):
            second = _partner(given, k)
            draft.add(Entry(given=given, true=given, fault="two_styles", detail=f"{given}+{second}", second=second))
        for _ in range(per_fault["off_topic"]):
            draft.add(Entry(given=given, true="", fault="off_topic", detail=off_topic.pop()))
        for _ in range(per_fault["broken"]):
            draft.add(Entry(given=given, true="", fault="broken", detail=broken.pop()))
    for (true, given), count in WRONG.items():
        draft.entries += [Entry(given=given, true=true, fault="wrong_label", detail=f"{true} shown as {given}")] * count
    for (true, given), count in CROSS.items():
        for _ in range(count):
            draft.copy_of(true, given, "cross_class", f"same bytes as {true}")
    _fail(rng, draft)
    return _bring_forward(draft.entries)


def _partner(given: str, k: int) -> str:
    near, far = {
        "regular": ("running", "cursive"),
        "running": ("cursive", "regular"),
        "cursive": ("running", "regular"),
    }[given]
    return far if k % 3 == 2 else near


def _fail(rng: np.random.Generator, draft: _Draft) -> None:
    ordinary = [i for pool in draft.free.values() for i in pool]
    for i in rng.choice(ordinary, RETRIED, replace=False):
        draft.entries[i] = replace(draft.entries[i], answer="503_once")
    for k, answer in enumerate(FAILING):
        draft.add(Entry(given=CLASSES[k % 3], true="", answer=answer))


def _bring_forward(entries: list[Entry]) -> list[Entry]:
    early: set[int] = set()
    broken_kinds: set[str] = set()
    for given, faults in EARLY_FAULTS.items():
        for fault in faults:
            pool = [i for i, e in enumerate(entries) if e.given == given and e.fault == fault and i not in early]
            fresh = [i for i in pool if fault != "broken" or entries[i].detail not in broken_kinds]
            chosen = (fresh or pool)[0]
            early.add(chosen)
            if entries[chosen].of >= 0:
                early.add(entries[chosen].of)
            if fault == "broken":
                broken_kinds.add(entries[chosen].detail)
    early.add(next(i for i, e in enumerate(entries) if e.answer == "503_once"))
    early.add(next(i for i, e in enumerate(entries) if e.answer == "404" and e.given == "running"))
    originals = {e.of for e in entries}
    for given in CLASSES:
        have = sum(entries[i].given == given for i in early)
        plain = [
            i
            for i, e in enumerate(entries)
            if e.given == given and not e.fault and e.answer == "ok" and i not in early and i not in originals
        ]
        early.update(plain[: EARLY - have])
    return [replace(e, early=i in early) for i, e in enumerate(entries)]


def ranks(rng: np.random.Generator, entries: list[Entry]) -> list[int]:
    """Return the rank of each entry within its class: the early ones first, every fault spread evenly."""
    place = np.zeros(len(entries))
    for given in CLASSES:
        for early in (True, False):
            kinds: dict[str, list[int]] = {}
            for i, e in enumerate(entries):
                if e.given == given and e.early == early:
                    kinds.setdefault(e.fault + ("!" if e.answer in FAILING else ""), []).append(i)
            for members in kinds.values():
                slots = (np.arange(len(members)) + rng.uniform(0, 1, len(members))) / len(members)
                place[rng.permutation(members)] = slots + (0 if early else 1)
    rank = [0] * len(entries)
    for given in CLASSES:
        members = [i for i, e in enumerate(entries) if e.given == given]
        for r, i in enumerate(sorted(members, key=lambda i: place[i])):
            rank[i] = r
    return rank


def address(rng: np.random.Generator, ext: str) -> str:
    """Return a URL path as found in the wild; nothing in it tells the class or a fault."""
    token = f"{rng.integers(1 << 40):010x}"
    number = int(rng.integers(1000, 9_999_999))
    year, month = int(rng.integers(2008, 2025)), int(rng.integers(1, 13))
    word = str(rng.choice(["shufa", "shodo", "scroll", "IMG", "DSC", "scan", "page", "zuopin", "works", "ink"]))
    shown = ext
    if ext == "jpg":
        shown = str(rng.choice(["jpg", "jpeg", "JPG", "jpg!w640"], p=[0.76, 0.12, 0.09, 0.03]))
    if rng.random() < 0.03:
        shown = str(rng.choice(["jpg", "png", "webp"]))  # hosts name files wrongly
    kinds = (
        (0.20, f"/wp-content/uploads/{year}/{month:02d}/{word}_{number}.{shown}"),
        (0.15, f"/upload/{year}{month:02d}{number % 28 + 1:02d}/{token}.{shown}"),
        (0.12, f"/photos/{number}/{word.lower()}-{token[:5]}.{shown}"),
        (0.12, f"/media/{token[:2]}/{token[2:4]}/{token}.{shown}"),
        (0.08, f"/images/{word}{number}.{shown}?w=640&h=480&q={number % 40 + 50}"),
        (0.08, f"/img/u={number},{int(rng.integers(10**8, 4 * 10**9))}&fm={number % 30}&gp=0.{shown}"),
        (0.07, f"/product/image.php?id={number}&size=large"),
        (0.07, f"/i/{token}"),
        (0.06, f"/{word.lower()}/{year}/{number}.{shown}?v={token[:6]}"),
        (0.05, f"/static/{word}%20{number}.{shown}"),
    )
    return kinds[rng.choice(len(kinds), p=np.array([w for w, _ in kinds]))][1]
