import dataclasses
import re

from mixup.mixture.splits import SPLITS
from mixup.report.digest import ModelUsed, StageRow
from mixup.report.mixture_digest import (
    MixtureDigest,
    PairExample,
    mixture_from_json,
    mixture_to_json,
)
from mixup.report.mixture_page import render_mixture_page

HOSTILE = '<script>alert(1)</script>\u202e"'
EXAMPLE = PairExample(
    pair="ab" * 16,
    task="qa",
    split="sft",
    plan="split_facts",
    rule=HOSTILE,
    rating=5,
    rating_source="construction",
    input=f"Q: one {HOSTILE}\n\nQ: two",
    output="Q: both\nA: one and two",
    thought="The items say the same.",
    degradations=(("typos", "truncated"), ()),
    ratings=(1, 3),
)
DIGEST = MixtureDigest(
    name="20260101T000000-abcdef",
    created_at="2026-01-01T00:00:00+00:00",
    run="20260101T000000-abcdef",
    config_fingerprint="f" * 32,
    pairs={"qa": {"sft": 3, "rl": 6, "validation": 1, "test": 2}, "para": dict.fromkeys(SPLITS, 0)},
    fates={"paired": 12, "near_duplicate": 3},
    made={"qa": {"made": 9, "no_topic": 1}, "para": {"no_paragraph": 10}},
    classes={"typos": {"1": 4, "2": 1}, "row_of_the_pool": {"3": 2}},
    plans={"split_facts": 12},
    rules={"qa.topic": 12},
    sources={"construction": 10, "column": 2},
    sizes={"2": 8, "10": 1, "3": 3},
    lengths={"250 to 500": 5, "0 to 250": 7},
    licences={HOSTILE: 12},
    thoughts=6,
    keeps_facts=11,
    articles=1234,
    quarantine={"empty_article": 7},
    stages=(StageRow("mix", 15, 15, 0, 2.5, unit="records", parts={"paired": 12}),),
    models=(ModelUsed("teacher", "rules", "r" * 32),),
    tables={"mixture": 4},
    examples=(EXAMPLE,),
    notes=("A note.",),
)


def cells(html: str, head: str) -> list[str]:
    """The cells of the first row that begins with a head."""
    row = re.search(rf'<th scope="row">{re.escape(head)}</th>(.*?)</tr>', html, re.DOTALL)
    assert row is not None, head
    return re.findall(r"<td[^>]*>(.*?)</td>", row.group(1), re.DOTALL)


def test_counts_stand_by_task_and_by_degradation():
    html = render_mixture_page(DIGEST)
    assert cells(html, "qa") == ["3", "6", "1", "2", "12"]
    assert cells(html, "para") == ["0"] * 5
    assert cells(html, "typos") == ["0", "4", "1", "0", "0", "0", "5"]
    assert cells(html, "row of the pool")[-1] == "2"
    assert "qa: 9 of 10" in html
    assert "para: 0 of 10" in html
    assert "1,234" in html
    sizes = html[html.index("Variants of a pair") :]
    assert re.findall(r"<bdi>(2|3|10|0 to 250|250 to 500)</bdi>", sizes)[:5] == [
        *("2", "3", "10"),
        *("0 to 250", "250 to 500"),
    ]


def test_the_page_runs_and_fetches_nothing_whatever_the_data_holds():
    html = render_mixture_page(DIGEST)
    assert "<script" not in html
    assert "\u202e" not in html
    assert "[U+202E]" in html
    assert "default-src 'none'" in html
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)


def test_an_example_shows_both_sides_and_what_was_done():
    html = render_mixture_page(DIGEST)
    assert "A: one and two" in html
    assert "1. typos, truncated (class 1)" in html
    assert "2. a row of the pool (class 3)" in html
    assert "The items say the same." in html


def test_a_mixture_without_a_pair_says_so():
    empty = dataclasses.replace(
        DIGEST, pairs={"qa": dict.fromkeys(SPLITS, 0)}, examples=(), classes={}, stages=()
    )
    html = render_mixture_page(empty)
    for said in ("There is no pair.", "There is no pair to show.", "No variant was made."):
        assert said in html


def test_the_digest_comes_back_from_its_json():
    assert mixture_from_json(mixture_to_json(DIGEST)) == DIGEST
