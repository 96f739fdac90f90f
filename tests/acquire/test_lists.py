"""Lists of URLs: never a URL under a class that the list did not name, and all that is left out is told."""

from __future__ import annotations

from typing import Any

import pytest

from curate.acquire.engines import urls
from curate.cli import main
from curate.errors import InputError

TWO = '[[classes]]\nname = "a"\n[[classes]]\nname = "b"'


def offered(data: Any) -> list[tuple[str, str]]:
    return [(line["label"], line["url"].rpartition("/")[2]) for line in data.attempts]


@pytest.mark.parametrize(
    "header", [("url,title",), ("url",), ("# a comment", "url,title"), ()], ids=["title", "url", "comment", "bare"]
)
def test_several_classes_need_labels(server: Any, scraping: Any, make_picture: Any, header: tuple[str, ...]) -> None:
    data = scraping(classes=TWO).lists(*header, server.fixed("/img/1", make_picture(1)))
    with pytest.raises(InputError, match=r"list\.txt .*2 classes: make it a table with url,label"):
        data.run()
    assert data.lines == []
    assert not server.asked


def test_rows_without_a_label_and_labels_of_no_class_are_told_and_left_out(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    made = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(7)]
    labels = ["a", "", "b", "A", "cat", "cat", " "]
    data = scraping(classes=TWO)
    data.lists("url,label", *(f"{u},{label}" for u, label in zip(made, labels, strict=True)), ",a")
    summary = data.run()
    assert offered(data) == [("a", "0"), ("b", "2")]
    (told,) = summary.advice
    assert "3 URLs of the list are of no class of curate.toml (2 of 'cat', 1 of 'A')" in told
    assert "2 rows of the list have no label" in told
    assert "1 rows of the list have no URL" in told
    with pytest.raises(SystemExit):
        main(["scrape", str(data.workspace.root), "--dry-run", "--json"])


def test_a_class_without_a_url_is_told_as_what_it_is(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping(classes=TWO).lists("url,label", f"{server.fixed('/img/1', make_picture(1))},a")
    assert data.run().advice == ("The list of URLs: it has no URL for 'b'.",)


def test_a_separator_of_unicode_in_a_title_ends_no_row(server: Any, scraping: Any, make_picture: Any) -> None:
    one, two = (server.fixed(f"/img/{n}", make_picture(n)) for n in range(2))
    data = scraping(classes=TWO).lists("url,label,title", f"{one},a,one\u2028two", f'{two},b,"x\n# y"')
    data.run()
    assert [(line["label"], line["title"]) for line in data.attempts] == [("a", "one\u2028two"), ("b", "x\n# y")]


def test_a_table_that_cannot_be_read_is_told_before_anything_is_asked(server: Any, scraping: Any) -> None:
    data = scraping().lists("url,title", server.base + '/img/1,"' + "x" * 140_000)
    with pytest.raises(InputError, match=r"list\.txt cannot be read as CSV: line 2"):
        data.run()
    assert not server.asked


def test_a_list_is_read_once_however_many_classes_there_are(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, times = urls.read_list, []
    monkeypatch.setattr(urls, "read_list", lambda *a, **k: times.append(1) or read(*a, **k))
    data = scraping(classes="".join(f'[[classes]]\nname = "c{n}"\n' for n in range(9)))
    data.lists("url,label", *(f"{server.fixed(f'/img/{n}', make_picture(n))},c{n}" for n in range(9)))
    assert data.run().new == 9
    assert len(times) == 1
