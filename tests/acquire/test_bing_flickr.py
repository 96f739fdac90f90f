"""Bing, Flickr, lists in Parquet, and the filters of every engine."""

from __future__ import annotations

import html
import io
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from curate.acquire.answers import Hit
from curate.acquire.engines import bing, engine, filters_of, flickr, secret, urls
from curate.config import parse_spec
from curate.errors import EnvironmentMissing, InputError, SpecError

# -- Bing


def bing_page(*records: dict[str, Any], body: str = "") -> str:
    tiles = "".join(
        f'<li><div class="imgpt"><a class="iusc" href="#" m="{html.escape(json.dumps(record))}"></a></div></li>'
        for record in records
    )
    return f'<!doctype html><html><body><ul class="dgControl_list">{tiles}</ul>{body}</body></html>'


def test_bing_reads_url_page_title_rank_and_thumbnail_from_the_attribute() -> None:
    record = {
        "murl": "https://a.example/pic.webp?w=1&h=2", "purl": "https://a.example/page", "turl": "https://th.bing/1",
        "t": "A \ue000cat\ue001 & <b>dog</b>",
    }  # fmt: skip
    answer = bing.parse(bing_page(record, {"murl": "http://b/2"}, record).encode(), page=2)
    assert answer.kind == "results"
    assert answer.hits == (
        Hit(url="https://a.example/pic.webp?w=1&h=2", page_url="https://a.example/page", title="A cat & dog", rank=70,
            thumbnail="https://th.bing/1"),
        Hit(url="http://b/2", rank=71),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "page", "kind"),
    [
        ("<div class='captcha'>", 200, 0, "blocked"),
        ("<title>x</title>Verify you are human", 200, 0, "blocked"),
        ("slow down", 429, 0, "blocked"),
        ("There are no results for xyz", 200, 0, "no_results"),
        ("<div></div>", 200, 3, "no_results"),
        ("", 200, 3, "changed"),
        ("<input value='captcha'>There are no results for captcha", 200, 0, "no_results"),
        ("<script src='/x/captcha.js'></script>no_results", 200, 0, "blocked"),
        ("<html>" + "something new " * 50, 200, 0, "changed"),
        ("<html>" + "something new " * 50, 200, 2, "changed"),
        (bing_page({"murl": 5}, {"other": "http://a"}), 200, 0, "changed"),
        ("", 502, 0, "unreachable"),
    ],
)
def test_bing_tells_its_answers_apart(body: str, status: int, page: int, kind: str) -> None:
    assert bing.parse(body, status=status, page=page).kind == kind


def test_bing_sends_to_its_challenge() -> None:
    assert bing.parse("<html></html>", url="https://www.bing.com/challenge/x").kind == "blocked"


@pytest.mark.parametrize("bad", ["{", "[1]", '{"murl": "javascript:alert(1)"}', "[" * 5000])
def test_bing_passes_over_what_is_no_record(bad: str) -> None:
    page = f'<a m="{html.escape(bad)}"></a>' + bing_page({"murl": "http://a/1"})
    assert [hit.url for hit in bing.parse(page).hits] == ["http://a/1"]


def test_bing_asks_with_the_filters_in_its_terms() -> None:
    url = bing.page_url("楷书 &x", 1, filters={"type": "photo", "color": "red", "size": ">800x600", "date": "pastweek"})
    question = parse_qs(urlsplit(url).query)
    assert question["q"] == ["楷书 &x"]
    assert question["first"] == ["36"]
    assert question["qft"][0].split() == [
        "filterui:photo-photo", "filterui:color2-FGcls_RED", "filterui:imagesize-custom_800_600",
        "filterui:age-lt10080",
    ]  # fmt: skip


# -- Flickr


def photos(*items: dict[str, Any], pages: int = 3) -> str:
    return json.dumps({"photos": {"page": 1, "pages": pages, "photo": list(items)}, "stat": "ok"})


def test_flickr_takes_the_largest_size_and_the_licence_that_it_states() -> None:
    first = {
        "id": "7", "owner": "9@N0", "ownername": "Ann", "title": "A cat", "license": "4",
        "url_m": "https://live/m.jpg", "url_l": "https://live/l.jpg", "url_s": "https://live/s.jpg",
    }  # fmt: skip
    answer = flickr.parse(photos(first, {"id": "8"}, {"id": "9", "url_o": "https://live/o.png", "license": 99}), page=1)
    assert answer.hits == (
        Hit(url="https://live/l.jpg", page_url="https://www.flickr.com/photos/9@N0/7", title="A cat", rank=100,
            thumbnail="https://live/s.jpg", license="CC BY 2.0, by Ann"),
        Hit(url="https://live/o.png", page_url="https://www.flickr.com/photos//9", rank=102,
            thumbnail="https://live/o.png", license="Flickr licence 99"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "page", "kind"),
    [
        (photos(), 0, "no_results"),
        (photos({"id": "1", "url_m": "http://a"}, pages=2), 2, "no_results"),
        (photos({"id": "1"}, {"id": "2"}), 0, "changed"),
        ('{"stat": "fail", "code": 100, "message": "Invalid API Key"}', 0, "blocked"),
        ('{"stat": "fail", "code": 105, "message": "Service currently unavailable"}', 0, "unreachable"),
        ('{"stat": "ok"}', 0, "changed"),
        ('{"photos": {"photo": {}}}', 0, "changed"),
        ("[]", 0, "changed"),
        ("<html>", 0, "changed"),
        ("[" * 100_000, 0, "changed"),
    ],
)
def test_flickr_tells_its_answers_apart(body: str, page: int, kind: str) -> None:
    assert flickr.parse(body, page=page).kind == kind


def test_flickr_asks_with_the_filters_in_its_terms() -> None:
    filters = {"license": "commercial,modify", "color": "blue", "type": "photo", "date": "pastday"}
    question = parse_qs(urlsplit(flickr.page_url("a b", 4, filters=filters)).query)
    assert question["text"] == ["a b"]
    assert question["page"] == ["5"]
    assert question["license"] == ["4,5,7,8,9,10,11,12"]
    assert question["color_codes"] == ["8"]
    assert question["content_types"] == ["0"]
    assert int(question["min_upload_date"][0]) % 86_400 == 0
    assert "api_key" not in question


def test_flickr_needs_its_key(monkeypatch: pytest.MonkeyPatch, scraping: Any) -> None:
    monkeypatch.delenv("FLICKR_API_KEY", raising=False)
    with pytest.raises(EnvironmentMissing, match=r"FLICKR_API_KEY.*flickr\.com"):
        scraping(classes='[[classes]]\nname = "a"\nqueries = ["x"]').run(engines=["flickr"])
    assert secret("bing") == ""


def test_the_key_is_sent_and_written_nowhere(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "s3cr3tkey")
    image = {"id": "1", "url_o": server.fixed("/img/1", make_picture(1)), "license": "9"}
    data = scraping(classes='[[classes]]\nname = "a"\nqueries = ["x"]')
    data.change('urls = "list.txt"', f'flickr = "{server.base}/f"')
    data.change("retries = 1", 'retries = 1\nfilters = { license = "publicdomain" }')
    server.routes["/f"] = lambda h: h.reply(200, photos(*[image] * ("page=1&" in h.path), pages=1).encode())
    data.run(engines=["flickr"])
    assert any("api_key=s3cr3tkey" in path for path in server.asked)
    assert "s3cr3t" not in data.workspace.sources.read_text()
    assert data.attempts[0]["license"] == {"filter": "publicdomain", "stated": "CC0 1.0"}
    server.routes["/f"] = lambda h: h.reply(302, b"", Location=h.path)
    data.run(engines=["flickr"], refresh=True)
    assert data.lines[-1]["outcome"] == "unreachable"
    assert "s3cr3t" not in data.workspace.sources.read_text()


# -- filters


@pytest.mark.parametrize(
    ("name", "filters", "message"),
    [
        ("baidu", {"license": "commercial"}, "engine baidu has no such filter; it has type, color, size"),
        ("flickr", {"size": "large"}, "engine flickr has no such filter"),
        ("urls", {"type": "photo"}, "it has none"),
        ("google", {"shape": "round"}, "no such filter"),
        ("google", {"altavista": {"type": "photo"}}, "no engine 'altavista'"),
    ],
)
def test_a_filter_that_an_engine_has_not_is_told(name: str, filters: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        filters_of(name, filters)


def test_each_engine_may_have_its_own_filters() -> None:
    filters: Any = {"type": "photo", "google": {"license": "commercial"}, "baidu": {"type": "static"}}
    assert filters_of("google", filters) == {"type": "photo", "license": "commercial"}
    assert filters_of("baidu", filters) == {"type": "static"}


@pytest.mark.parametrize("filter_", ["license free", "color plaid", "type face", "date 1999"])
def test_a_value_that_flickr_has_not_is_told(filter_: str) -> None:
    key, value = filter_.split()
    with pytest.raises(InputError, match="engine flickr knows"):
        flickr.page_url("x", 0, filters={key: value})


@pytest.mark.parametrize("name", ["google", "baidu", "bing", "flickr"])
def test_every_filter_that_is_named_is_understood(name: str) -> None:
    values = {
        "type": {"baidu": "portrait"}.get(name, "photo"), "color": "red", "size": "large", "license": "commercial",
        "date": "pastmonth", "layout": "wide", "people": "face",
    }  # fmt: skip
    made = engine(name)
    assert made.page_url("x", 0, endpoint="http://e", filters={key: values[key] for key in made.FILTERS}) != (
        made.page_url("x", 0, endpoint="http://e", filters={})
    )


# -- lists


def parquet(**columns: list[Any]) -> bytes:
    stream = io.BytesIO()
    pl.DataFrame(columns).write_parquet(stream)
    return stream.getvalue()


def test_a_parquet_list_is_read_like_a_csv() -> None:
    listed = ["http://a/1", None, "http://a/2", "http://a/3"]
    body = parquet(URL=listed, label=["x", "x", "y", "x"], license=["CC0"] * 4)
    hits = urls.parse(body, label="x").hits
    assert [(h.url, h.rank, h.license) for h in hits] == [("http://a/1", 0, "CC0"), ("http://a/3", 1, "CC0")]
    with pytest.raises(InputError, match="columns \\['url', 'title'\\], none is `label`"):
        urls.read_list(parquet(url=["http://a/1"], title=["x"]), "list.parquet", classes=2)


@pytest.mark.parametrize("body", [b"PAR1 and no more", parquet(link=["http://a"])])
def test_a_parquet_list_that_is_none_is_told(body: bytes) -> None:
    with pytest.raises(InputError, match="list of URLs"):
        urls.parse(body, url="list.parquet", label="x")


def test_a_parquet_list_is_scraped(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping(classes='[[classes]]\nname = "a"\n[[classes]]\nname = "b"')
    listed = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(4)]
    (data.workspace.root / "list.txt").write_bytes(parquet(url=listed, label=["a", "b", "a", "b"]))
    assert data.run().kept == {"a": 2, "b": 2}


# -- dates


@pytest.mark.parametrize("value", ['["2020-01-05", "2021-12-31"]', "[2020-01-05, 2021-12-31]"])
def test_a_range_of_dates_is_a_list_of_two(value: str) -> None:
    filters = parse_spec(f"[scrape]\nfilters = {{ date = {value} }}").scrape.filters
    google = engine("google").page_url("x", 0, endpoint="http://g", filters=filters_of("google", filters))
    assert parse_qs(urlsplit(google).query)["tbs"] == ["cdr:1,cd_min:01/05/2020,cd_max:12/31/2021"]
    question = parse_qs(urlsplit(flickr.page_url("x", 0, filters=filters_of("flickr", filters))).query)
    assert question["min_upload_date"] == ["2020-01-05 00:00:00"]
    assert question["max_upload_date"] == ["2021-12-31 23:59:59"]
    with pytest.raises(InputError, match="date"):
        bing.page_url("x", 0, filters=filters_of("bing", filters))


@pytest.mark.parametrize("value", ['["2020-01-05"]', '["2020-01-05", "soon"]', "5"])
def test_a_range_of_dates_that_is_none_is_told(value: str) -> None:
    with pytest.raises(SpecError, match="filters"):
        parse_spec(f"[scrape]\nfilters = {{ date = {value} }}")
