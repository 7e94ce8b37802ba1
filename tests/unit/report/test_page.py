"""The page: complete, self-contained, and inert whatever the data holds."""

import base64
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs
from sample_digest import HITS, HOSTILE, empty_digest, full_digest

from mixup.quality.rating_noise import RatingNoise
from mixup.report.digest import Share, SourceRows
from mixup.report.page import interval, render_page
from mixup.report.wording import visible

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects the tags, attributes, headings and text of a page; checks that tags are nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.text = ""
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(full_digest())


@pytest.fixture(scope="module")
def page(html: str) -> Reader:
    return Reader(html)


def test_hostile_text_is_shown_and_never_obeyed(html, page):
    for text in HOSTILE:
        assert visible(text) in page.text
    assert "<script>document" not in html
    assert "<img" not in html
    assert "\u202e" not in html
    assert "{{ 7 * 7 }}" in page.text
    assert "49 {% raw" not in page.text
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    html.encode("utf-8")


def test_scripts_are_ours_alone(page):
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert kinds == ["application/json", "application/json", None, "text/plain", None]
    data = json.loads(page.scripts[0])
    expected = {"ratings", "quality", "long-tail", "sizes", "cohesion", "reward-0", "timeline"}
    assert expected <= set(data["figures"])
    assert len(json.loads(page.scripts[1])["clusters"]) == 20
    assert gzip.decompress(base64.b64decode(page.scripts[3])).decode() == get_plotlyjs()


def test_the_page_asks_nothing_of_the_network(html, page):
    policy = next(
        attrs["content"]
        for tag, attrs in page.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith(
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:"
    )
    for _, attrs in page.tags:
        assert not attrs.get("src")
        assert (attrs.get("href") or "#").startswith(("#", "data:"))
    for word in ("http://", "https://", "url(", "@import"):
        assert word not in html


def test_headings_descend_by_one_and_the_contents_lead_somewhere(page):
    assert page.headings.count(1) == 1
    assert page.headings[0] == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs.get("href")]
    assert len(links) >= 10
    assert {str(link)[1:] for link in links} <= set(ids)


def test_what_the_reader_must_know_is_stated(page):
    text = " ".join(page.text.split())
    for statement in (
        "2,000 rows were asked for and the release has 1,612",
        "412 of 895 samples keep the format",
        "893 of 895 samples keep the format",
        "Sum of the fates: 20,000, as many as rows were read.",
        "1,489 samples scored, 12 missing.",
        "accepted from 0.6",
        "Reward below threshold",
        "No pair could be read from this text",
        "1 h 25 min",
        "20 of 895 clusters shown",
        "rated 16,640",
        "cost $4.2500",
        "64.0 % of the distill stage an engine was at work",
        "80.0 % at work from its first batch to its last (1 min 40 s, 2 engines)",
        "30.0 s longest wait of an engine between batches",
        "4,000 tokens a second over the stage",
        "75.0 % of 8.0 s of reward work went on beside generation",
        "7 of 1,204 shown.",
    ):
        assert statement in text


def test_the_first_clusters_are_there_without_scripts(page):
    text = " ".join(page.text.split())
    assert text.count("Sample 1") == 3
    assert text.count("With scripts on, this page lists and searches all 20.") == 1


def test_missing_rewards_are_named_not_drawn_as_zero():
    only = dataclasses.replace(full_digest(), examples=full_digest().examples[1:2])
    assert Reader(render_page(only)).text.count("missing") >= 5


def test_a_long_text_is_cut_and_says_so():
    long = "x" * 5_000_000
    first = full_digest().examples[0]
    example = dataclasses.replace(first, inputs=(long, "short"))
    html = render_page(
        dataclasses.replace(
            full_digest(),
            examples=(example,),
            notes=(long,),
            contamination=(dataclasses.replace(HITS[0], question=long, key=long),),
            sources=(SourceRows(long, long, 1),),
        )
    )
    assert len(html) < 3_000_000
    text = " ".join(Reader(html).text.split())
    assert "Cut here: 4,998,500 more characters are in the tables." in text
    assert "… (4,999,700 more characters)" in text


def test_fates_that_do_not_add_up_are_called_out():
    digest = dataclasses.replace(full_digest(), fates={"original": 3, "odd_kind": 1})
    text = " ".join(Reader(render_page(digest)).text.split())
    assert "The fates do not add up: they sum to 4, but 20,000 rows were read." in text
    assert "Odd kind" in text


def test_bands_lead_to_the_clusters_that_share_a_fate():
    fates = {"original": 1, "merged": 4, "left_out:cluster_rejected": 6, "duplicate": 2}
    page = Reader(render_page(dataclasses.replace(full_digest(), fates=fates)))
    picks = [attrs["data-pick"] for _, attrs in page.tags if "data-pick" in attrs]
    assert {"verdict:released", "verdict:rejected", "reason:no_answer_block"} <= set(picks)


def test_an_empty_run_has_a_page():
    text = " ".join(Reader(render_page(empty_digest())).text.split())
    assert "No row was read." in text
    assert "0 of 0: no sample was drawn this way." in text
    assert "so there is no engine use to show" in text
    assert "Shortfall" not in text


def test_interval():
    assert interval(Share(5, 10)) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_trials_have_no_interval():
    assert interval(Share(0, 0)) is None


def test_what_was_fitted_of_the_pool_is_said():
    page = render_page(full_digest())
    assert "No observed rating was tested: the errors of the rater are not known" in page
    assert "worth 1.5 independent votes" in page
    assert "Quality is told by a logistic regression on embeddings" in page
    assert 'id="plot-precision"' in page
    assert "Kept from 0.62 on (the lowest with a precision of 0.8)" in page
    assert "30.0 %" in page  # 6,000 of 20,000
    scores = full_digest().scores
    assert scores is not None
    plain = dataclasses.replace(scores, curve=None, untested=None)
    page = render_page(dataclasses.replace(full_digest(), scores=plain))
    assert "Observed ratings were tested by those of their neighbors." in page
    assert 'id="plot-precision"' not in page


def test_what_is_known_of_the_rater_is_shown_with_its_doubts():
    page = render_page(full_digest())
    assert "Errors of the rater" in page
    assert "drawn towards a simple form" in page
    assert "0.850 to 0.950" in page
    assert 'id="plot-noise"' in page
    nothing = RatingNoise("none", "12 samples; at least 100 are needed", 12)
    page = render_page(dataclasses.replace(full_digest(), noise=nothing))
    assert "cannot be told: 12 samples" in page
    assert 'id="plot-noise"' not in page
