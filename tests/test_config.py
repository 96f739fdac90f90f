from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.config import CLASS_NAME, Spec, parse_spec, read_spec
from curate.errors import SpecError

# -- wrong keys and values

WRONG = [
    ("", "titel", '"x"'),
    ("", "title", "3"),
    ("scrape", "limt", "3"),
    ("scrape", "limit", "0"),
    ("scrape", "limit", '"many"'),
    ("scrape", "engines", '["google", "altavista"]'),
    ("scrape", "endpoints", '"nowhere"'),
    ("scrape", "threads", "65"),
    ("scrape", "timeout", "0"),
    ("scrape", "retries", "-1"),
    ("scrape", "respect_robots", '"perhaps"'),
    ("scrape.endpoints", "altavista", '"http://127.0.0.1:1/"'),
    ("scrape.filters", "size", "3"),
    ("dedupe", "max_distance", "17"),
    ("dedupe", "min_similarity", "1.5"),
    ("dedupe", "keeper", '["prettiest"]'),
    ("checks", "dusky", "0.1"),
    ("checks", "odd_aspect", "0.5"),
    ("checks", "ambiguous", "[0.5, 0.6, 0.7]"),
    ("checks", "outlier_neighbours", "0"),
    ("audit", "mode", '"guess"'),
    ("audit", "folds", "1"),
    ("audit", "image_size", "16"),
    ("audit", "regularisation", "0"),
    ("audit", "seed", "-1"),
    ("augment", "flip", "2"),
    ("augment", "max_rotate", "181"),
    ("train", "sizes", "[]"),
    ("train", "sizes", "[0, 64]"),
    ("train", "sizes", '["big"]'),
    ("train", "epochs", "-1"),
    ("train", "batch_size", "1"),
    ("train", "lr", "0.0"),
    ("train", "seeds", "[]"),
    ("train", "seeds", "[0, -1]"),
    ("train", "seeds", "[3, 3]"),
    ("review", "budget", "0"),
    ("review", "probes", "1.0"),
]


@pytest.mark.parametrize(("table", "key", "value"), WRONG)
def test_a_wrong_key_or_value_is_named_with_its_line(table: str, key: str, value: str) -> None:
    lines = ["# a comment", 'description = "fine"', "", "[[classes]]", 'name = "a"']
    wrong = f"{key} = {value}"
    if table:
        lines += ["", f"[{table}]  # the table", wrong]
    else:
        lines.insert(2, wrong)
    lines += ["", "[review]"] if table != "review" else []
    with pytest.raises(SpecError) as caught:
        parse_spec("\n".join(lines), where="here.toml")
    told = str(caught.value)
    full = f"{table}.{key}" if table else key
    assert told.startswith("here.toml: ")
    assert re.search(rf"\b{re.escape(full)}(\.\S+)? \(line {lines.index(wrong) + 1}\): ", told)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[audit]\n'folds' = 1", 2),
        ('[audit]\n"folds"=1', 2),
        ("audit.folds = 1", 1),
        ("\naudit . folds = 1", 2),
        ("[ audit ]\nfolds = 1", 2),
        ("\naudit = { folds = 1 }", 2),
        ("[audit]\r\n\r\nfolds = 1\r\n", 3),
        ('description = """\n[audit]\nfolds = 3\n"""\n[audit]\nfolds = 1', 6),
        ("description = '''\nfolds = 1\n[audit]\nfolds = 3'''\n[audit]\nfolds = 1", 6),
        ('description = """one line"""\n[audit]\nfolds = 1', 3),
        ("[train]\nepochs = 1 # [audit]\n[audit] # folds = 3\nfolds = 1", 4),
    ],
)
def test_the_line_is_found_in_every_way_of_writing_toml(text: str, line: int) -> None:
    with pytest.raises(SpecError, match=rf"audit\.folds \(line {line}\): .*not 1$"):
        parse_spec(text)


def test_an_unknown_key_with_a_space_is_named_with_its_line() -> None:
    with pytest.raises(SpecError, match=r"my key \(line 2\): there is no such key"):
        parse_spec('title = "x"\n"my key" = 1')


def test_the_class_that_is_wrong_is_told_from_the_others() -> None:
    text = '[[classes]]\nname = "a"\n[[classes]]\nname = "b"\nquerys = ["x"]\n[[classes]]\nname = "../c"'
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert "classes.1.querys (line 5): there is no such key" in str(caught.value)
    assert "classes.2 (line 6): class name '../c' cannot be a folder name" in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SpecError, match=r"audit\.folds \(line 2\).*; train\.epoch \(line 4\)"):
        parse_spec("[audit]\nfolds = 1\n[train]\nepoch = 1")


def test_text_that_is_no_toml_is_told_with_its_line() -> None:
    with pytest.raises(SpecError, match=r"curate\.toml is not valid TOML: .*line 2"):
        parse_spec("title = 'x'\nfolds = = 1")


def test_a_class_named_twice_is_an_error() -> None:
    with pytest.raises(SpecError, match="classes named twice: a"):
        parse_spec('[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n[[classes]]\nname = "a"')


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", " a", "a ", "a.", "_a", "a\n", "a\x00b", "-a"]
)
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    assert not CLASS_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["a", "楷书", "a b", "a.b", "x-1_2+3", "ünïcode", "0"])
def test_names_that_are_folder_names_are_allowed(name: str) -> None:
    assert parse_spec(f'[[classes]]\nname = "{name}"').classes[0].name == name


def test_a_spec_that_cannot_be_read_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml cannot be read"):
        read_spec(tmp_path / "none.toml")
    broken = tmp_path / "latin.toml"
    broken.write_bytes('title = "é"'.encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.toml cannot be read"):
        read_spec(broken)


# -- right ones


def test_an_empty_spec_is_the_defaults_and_cannot_change() -> None:
    spec = parse_spec("")
    assert spec == Spec()
    assert (spec.augment.flip, spec.train.sizes, spec.train.lr) == (False, (128, 256), None)
    with pytest.raises(ValidationError):
        spec.title = "other"
    with pytest.raises(ValidationError):
        spec.audit.folds = 9


def test_class_titles_are_what_people_read() -> None:
    spec = parse_spec('[[classes]]\nname = "regular"\ntitle = "楷书"\n[[classes]]\nname = "odd"')
    assert spec.class_titles == {"regular": "regular 楷书", "odd": "odd"}


def test_an_endpoint_can_be_given_for_one_engine() -> None:
    spec = parse_spec('[scrape.endpoints]\ngoogle = "http://127.0.0.1:8600/google"')
    assert spec.scrape.endpoints == {"google": "http://127.0.0.1:8600/google"}


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
fraction = st.floats(0, 1)
names = st.from_regex(r"[a-z0-9楷ä](?:[\w .+-]{0,6}[\w+-])?", fullmatch=True).filter(CLASS_NAME.fullmatch)
sections: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "scrape": {
        "engines": st.lists(st.sampled_from(["google", "baidu", "bing", "flickr", "urls"])),
        "limit": st.integers(1, 10**6), "allow_private_hosts": st.booleans(), "threads": st.integers(1, 64),
        "timeout": st.floats(0.01, 100), "operator": text,
    },
    "dedupe": {
        "max_distance": st.integers(0, 16), "min_similarity": fraction,
        "keeper": st.lists(st.sampled_from(["largest", "sharpest", "first"])),
    },
    "checks": {"dark": st.floats(0, 1), "ambiguous": st.tuples(fraction, fraction), "tiny": st.integers(1, 999)},
    "audit": {"mode": st.sampled_from(["auto", "probe", "finetune"]), "folds": st.integers(2, 50), "weights": text},
    "augment": {"flip": st.booleans(), "max_zoom": st.floats(1, 9), "mixup": fraction},
    "train": {
        "sizes": st.lists(st.integers(16, 1024), min_size=1), "lr": st.floats(1e-9, 1),
        "seeds": st.lists(st.integers(0, 2**31 - 1), min_size=1, unique=True),
    },
    "review": {"budget": st.integers(1, 10**6), "probes": st.floats(0, 0.9)},
}  # fmt: skip
specs = st.fixed_dictionaries(
    {},
    optional={
        "title": text,
        "classes": st.lists(
            st.fixed_dictionaries({"name": names}, optional={"title": text, "queries": st.lists(text, max_size=3)}),
            unique_by=lambda c: c["name"],
            max_size=4,
        ),
        **{name: st.fixed_dictionaries({}, optional=keys) for name, keys in sections.items()},
    },
)


def toml(value: dict[str, Any]) -> list[str]:
    """The lines of a TOML file that says `value`."""

    def pairs(table: dict[str, Any]) -> list[str]:
        return [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in table.items()]

    lines = pairs({k: v for k, v in value.items() if isinstance(v, str)})
    for name, table in value.items():
        if name == "classes":
            for one in table:
                lines += ["[[classes]]", *pairs(one)]
        elif isinstance(table, dict):
            lines += [f"[{name}]", *pairs(table)]
    return lines


@given(specs)
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    spec = parse_spec("\n".join(toml(value)))
    said = {key: part for key, part in value.items() if part != []}
    assert spec.model_dump(mode="json", exclude_unset=True) == json.loads(json.dumps(said))
    assert Spec.model_validate(spec.model_dump()) == spec


@given(specs, st.data())
def test_a_misspelt_key_is_named_with_its_line_wherever_it_stands(value: dict[str, Any], data: st.DataObject) -> None:
    lines = toml(value)
    place = data.draw(st.integers(0, len(lines)))
    lines.insert(place, "mispelt = 1")
    if data.draw(st.booleans()):
        lines.insert(data.draw(st.integers(0, place)), "  # mispelt = 1")
        place = lines.index("mispelt = 1")
    with pytest.raises(SpecError, match=rf"mispelt \(line {place + 1}\): there is no such key"):
        parse_spec("\n".join(lines))
