from __future__ import annotations

import json
import string
from urllib.parse import parse_qs, urlsplit

import pytest

from curate.acquire.answers import Hit, advice, refused
from curate.acquire.engines import baidu, engine, google, urls
from curate.errors import InputError


def google_html(*scripts: str, body: str = "") -> str:
    return "<!doctype html><html><body>" + body + "".join(f"<script>{s}</script>" for s in scripts) + "</body></html>"


def record(
    url: str, thumbnail: str = "https://encrypted-tbn0.gstatic.com/images?q=tbn:x", **source: str
) -> list[object]:
    table = {"2001": [None], "2003": [None, "id", source.get("page", "https://p.example/"), source.get("title", "T")]}
    return [1, [0, "id", [thumbnail, 180, 240], [url, 600, 800], None, 0, "rgb(1,2,3)", None, False, table]]


def callback(*records: object, key: str = "ds:1") -> str:
    data = json.dumps([None, [[["grid", None, [list(records)]]]]]).replace("=", "\\u003d").replace("&", "\\u0026")
    return f"AF_initDataCallback({{key: '{key}', hash: '2', data:{data}, sideChannel: {{}}}});"


# -- Google


def test_google_reads_url_page_title_rank_and_thumbnail_from_the_embedded_json() -> None:
    first = "https://a.example/one.webp?w=640&h=480"
    page = google_html(
        "AF_initDataCallback({key: 'ds:0', data:[1,2]});",
        callback(record(first, page="https://a.example/p?x=1", title="One"), record("http://b.example/2.AVIF")),
    )
    answer = google.parse(page.encode(), page=2)
    assert answer.kind == "results"
    assert answer.hits[0] == Hit(
        url=first,
        page_url="https://a.example/p?x=1",
        title="One",
        rank=200,
        thumbnail="https://encrypted-tbn0.gstatic.com/images?q=tbn:x",
    )
    assert [(h.url, h.rank) for h in answer.hits[1:]] == [("http://b.example/2.AVIF", 201)]


def test_google_keeps_every_ending_and_query_string_and_drops_repeats() -> None:
    wanted = ["http://a/1.jpeg", "http://a/2.webp", "http://a/3.avif?x=1&y=2", "http://a/image.php?id=4", "http://a/5"]
    answer = google.parse(google_html(callback(*map(record, [*wanted, wanted[0]]))))
    assert [hit.url for hit in answer.hits] == wanted


def test_google_reads_json_that_a_variable_is_set_to() -> None:
    answer = google.parse(google_html("var m=" + json.dumps({"id": record("http://a/x.png?q=1")}) + ";var a=m;"))
    assert [hit.url for hit in answer.hits] == ["http://a/x.png?q=1"]


@pytest.mark.parametrize(
    ("page", "url"),
    [
        (google_html('f({broken:["https://a.example/b.jpeg?c\\u003dd",60,80]})'), "https://a.example/b.jpeg?c=d"),
        (google_html('f({broken:["https:\\/\\/a.example\\/b.webp",60,80]})'), "https://a.example/b.webp"),
        ('<div class="rg_meta">{"ou":"http://a.example/x.avif?y=1","ow":3}</div>', "http://a.example/x.avif?y=1"),
        ('<a href="/imgres?imgurl=http%3A%2F%2Fa.example%2F1.jpg%3Fz%3D1&amp;imgrefurl=http%3A%2F%2Fp">x</a>',
         "http://a.example/1.jpg?z=1"),
    ],
)  # fmt: skip
def test_google_falls_back_on_patterns(page: str, url: str) -> None:
    answer = google.parse(page)
    assert [hit.url for hit in answer.hits] == [url]


@pytest.mark.parametrize(
    ("page", "options", "kind"),
    [
        ('<form action="https://consent.google.com/save">Before you continue</form>', {}, "blocked"),
        ("<html></html>", {"url": "https://consent.google.com/ml?continue=x"}, "blocked"),
        ('<form id="captcha-form" action="index">unusual traffic</form>', {}, "blocked"),
        ("", {"url": "https://www.google.com/sorry/index?continue=x", "status": 429}, "blocked"),
        ('<noscript><meta content="0;url=/httpservice/retry/enablejs?sei=a"></noscript>', {}, "blocked"),
        ("", {"status": 429}, "blocked"),
        ("", {"status": 403}, "blocked"),
        ("", {"status": 502}, "unreachable"),
        ("<p>Your search - x - did not match any image results.</p>", {}, "no_results"),
        ("<p>找不到和您查询的“x”相符的内容或信息。</p>", {}, "no_results"),
        (google_html(callback()), {"page": 1}, "no_results"),
        (google_html(callback()), {}, "changed"),
        ("<html><body>Hello</body></html>", {}, "changed"),
        ("", {}, "changed"),
        ("[" * 100_000, {}, "changed"),
        (google_html("data:" + "[" * 100_000), {}, "changed"),
    ],
)
def test_google_tells_its_answers_apart(page: str, options: dict[str, object], kind: str) -> None:
    answer = google.parse(page, **options)  # type: ignore[arg-type]
    assert (answer.kind, answer.hits) == (kind, ())


def test_google_asks_with_the_keyword_encoded_and_the_filters_in_its_terms() -> None:
    url = google.page_url("楷书 书法&x", 2, filters={"size": "large", "license": "commercial"})
    question = parse_qs(urlsplit(url).query)
    assert question == {"q": ["楷书 书法&x"], "tbm": ["isch"], "ijn": ["2"], "start": ["200"], "tbs": ["isz:l,sur:fc"]}
    assert url.isascii()


# -- Baidu


def test_baidu_substitution_is_the_known_one_and_has_an_inverse() -> None:
    hidden = "ippr_z2C$qAzdH3FAzdH3Ft42d_z&e3Bkwt17_z&e3Bv54AzdH3Ft4w2jfAzdH3F8a8"
    assert baidu.decode_url(hidden) == "http://img2.baidu.com/images/101"
    everything = "https://" + string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%"
    assert baidu.decode_url(baidu.encode_url(everything)) == everything


def test_baidu_substitution_agrees_with_icrawler() -> None:
    from icrawler.builtin.baidu import BaiduParser

    url = "https://ss0.example.com/7LsWdDW5_xN3otebn9fN2DJv/x.jpeg?w=12&h=890"
    assert BaiduParser._decode_url(None, baidu.encode_url(url)) == url


def acjson(*items: dict[str, object], **more: object) -> str:
    return json.dumps({"queryExt": "x", "data": [*items, {}], **more})


def test_baidu_reads_url_page_title_and_rank() -> None:
    item = {
        "objURL": baidu.encode_url("http://a/1.webp?x=1"),
        "fromURL": baidu.encode_url("http://p/"),
        "fromPageTitle": "<strong>楷书</strong> it\\'s &amp; more",
        "thumbURL": "http://t/1",
    }
    answer = baidu.parse(acjson(item, {"hoverURL": "http://h/2.jpg"}).replace("\\\\'", "\\'"), page=1)
    assert answer.hits == (
        Hit(url="http://a/1.webp?x=1", page_url="http://p/", title="楷书 it's & more", rank=30, thumbnail="http://t/1"),
        Hit(url="http://h/2.jpg", rank=31),
    )


@pytest.mark.parametrize(
    ("item", "url"),
    [
        ({"objURL": "http://plain/1.jpg", "thumbURL": "http://t"}, "http://plain/1.jpg"),
        ({"objURL": "", "hoverURL": "", "middleURL": "http://m", "thumbURL": "http://t"}, "http://m"),
        ({"objURL": "@@", "thumbURL": "http://t"}, "http://t"),
    ],
)
def test_baidu_falls_back_on_its_own_copies(item: dict[str, object], url: str) -> None:
    assert [hit.url for hit in baidu.parse(acjson(item)).hits] == [url]


@pytest.mark.parametrize(
    ("page", "status", "kind"),
    [
        ('{"antiFlag":1,"message":"Forbid spider access"}', 200, "blocked"),
        ("<html>百度安全验证 https://wappass.baidu.com/x</html>", 200, "blocked"),
        ("", 429, "blocked"),
        ("", 503, "unreachable"),
        (acjson(), 200, "no_results"),
        ('{"data":[]}', 200, "no_results"),
        ('{"displayNum":3}', 200, "changed"),
        ('{"data":{}}', 200, "changed"),
        ("[]", 200, "changed"),
        (acjson({"width": 3}), 200, "changed"),
        ("<html>new design</html>", 200, "changed"),
        ("", 200, "changed"),
    ],
)
def test_baidu_tells_its_answers_apart(page: str, status: int, kind: str) -> None:
    answer = baidu.parse(page, status=status)
    assert (answer.kind, answer.hits) == (kind, ())
    assert answer.detail


def test_baidu_asks_with_the_keyword_encoded() -> None:
    url = baidu.page_url("楷书 书法&x", 2, filters={"color": "red"})
    question = parse_qs(urlsplit(url).query)
    assert question["word"] == ["楷书 书法&x"]
    assert (question["pn"], question["rn"], question["ic"]) == (["60"], ["30"], ["1"])
    assert url.isascii()


# -- all


@pytest.mark.parametrize("name", ["google", "baidu"])
@pytest.mark.parametrize("filters", [{"shape": "round"}, {"color": "plaid"}, {"size": "=3"}])
def test_a_filter_that_there_is_not_is_told(name: str, filters: dict[str, str]) -> None:
    with pytest.raises(InputError, match="filters"):
        engine(name).page_url("x", 0, endpoint="http://x", filters=filters)


def test_an_engine_that_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"altavista.*google.*bing"):
        engine("altavista")


def test_a_list_of_urls_is_read_as_text_or_as_a_table() -> None:
    assert [h.url for h in urls.parse(b"\xef\xbb\xbfhttp://a/1\n\n# no\nhttp://a/2?x=1,2\n", label="c").hits] == [
        "http://a/1", "http://a/2?x=1,2",
    ]  # fmt: skip
    table = "label,url,title\nc,http://a/1,One\nd,http://a/2,\n"
    assert urls.parse(table, label="c").hits == (Hit(url="http://a/1", title="One"),)
    assert urls.parse(table, label="e").kind == urls.parse("").kind == "no_results"
    with pytest.raises(InputError, match="url"):
        urls.parse("address,label\nx,y")
    with pytest.raises(InputError, match="UTF-8"):
        urls.parse(b"\xff\xfe\x00")


@pytest.mark.parametrize("outcome", ["no_results", "blocked", "changed", "unreachable"])
def test_advice_says_what_to_do(outcome: str) -> None:
    text = advice(outcome, "google")
    assert text.startswith("Google")
    assert "--engine" in text or "run again" in text
    assert advice("results", "google") == ""


def test_a_status_alone_can_be_an_answer() -> None:
    assert [getattr(refused(s), "kind", None) for s in (200, 403, 429, 404, 500)] == [
        None, "blocked", "blocked", "unreachable", "unreachable",
    ]  # fmt: skip
