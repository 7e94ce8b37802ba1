"""The report in a real browser: what a reader does with it, and data that stays text."""

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BROWSER, Chromium

from mixup.records import Turn
from mixup.report.curation import (
    Calibration,
    CellsFound,
    CuratedRatings,
    DuplicatePair,
    Duplicates,
    PairText,
    ScoreCuration,
)
from mixup.report.digest import (
    ClusterExample,
    Compliance,
    ContaminationHit,
    Counts,
    Digest,
    ModelUsed,
    SampleExample,
    Share,
    SourceRows,
    StageRow,
)
from mixup.report.page import render_page
from mixup.report.timeline import engine_use, timeline_of

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

ATTACKS = (
    "</script><script>document.body.id='pwned'</script>",
    "<img src=x onerror=\"document.body.id='pwned'\">",
    '<a href="javascript:document.body.id=1">click</a> javascript:alert(1)',
    "left \u202etxt.exe\u202c \u2028 \u0000 \ud800 {{ 7 * 7 }} ${7*7}",
    '=HYPERLINK("http://evil.example","x") @SUM(1+1) +1 -1',
    "<b>bold</b> &lt;i&gt; <svg onload=alert(1)> <!-- ]]> --!>",
    "__proto__",
)
REASONS = ("low_quality", "cut_off", "copied_input")
VERDICTS = ("released", "accepted", "rejected", "not_distilled")
SPANS = [
    (f"generate:{engine}", 10.0 * at + engine, 10.0 * at + 9)
    for at in range(60)
    for engine in (0, 1)
] + [(ATTACKS[1], 10.0 * at + 3, 10.0 * at + 5) for at in range(60)]


def key_of(at: int) -> str:
    return f"{at * 7_919:032x}"


def sample(at: int, place: int, *, accepted: bool) -> SampleExample:
    attack = ATTACKS[(at + place) % len(ATTACKS)]
    words = f"needle{at} " if at == 41 and place == 0 else ""
    turns = (Turn("user", f"Question {at} {attack}"), Turn(attack, f"{words}Answer {at} {attack}"))
    is_parsed = accepted or at % 2 == 0
    return SampleExample(
        text=f"<think>{attack}</think><answer>{at}</answer>",
        thought=f"Thought {attack}" if is_parsed else None,
        turns=turns if is_parsed else (),
        finish=attack,
        constrained=bool(place),
        rewards={"format": 1.0, "quality": None if at % 5 == 0 else 0.5, attack: 0.25},
        combined=round(0.2 + 0.7 * (at % 97) / 97, 4),
        accepted=accepted,
        reason=None if accepted else REASONS[at % 3] if at % 11 else attack,
    )


def example(at: int) -> ClusterExample:
    verdict = VERDICTS[at % 4]
    attack = ATTACKS[at % len(ATTACKS)]
    members = tuple(
        f"Q: member {row} of cluster {at}? {attack}\nA: {'word ' * 120}"
        for row in range(2 + at % 5)
    )
    samples = tuple(sample(at, place, accepted=verdict in VERDICTS[:2]) for place in range(2))
    return ClusterExample(
        cluster=key_of(at),
        task=("qa", "mcq", attack)[at // 3 % 3],
        cohesion=0.6 + 0.4 * (at % 89) / 89,
        inputs=members,
        samples=() if verdict == "not_distilled" else samples,
        verdict=verdict,
    )


def curation() -> ScoreCuration:
    """All charts of score curation, and pairs whose rows and sources are attacks."""
    rows = [PairText(attack, attack, 7, (attack,)) for attack in ATTACKS]
    pairs = tuple(DuplicatePair(row, rows[0], 0.97, same_source=False) for row in rows)
    diagonal = tuple((0,) * at + (9,) + (0,) * (5 - at) for at in range(6))
    return ScoreCuration(
        calibration=Calibration((9,) * 10, tuple(0.9 * at + 0.45 for at in range(10)), (4,) * 10),
        ratings=CuratedRatings(54, diagonal, 54, 9, 0),
        cells=CellsFound(2, 90, 50, 100, (0,) * 9 + (2,) + (0,) * 10, 30, 1, 0.1),
        duplicates=Duplicates(5, 7, 0, 7, 0.95, pairs),
    )


def hostile_digest(clusters: int) -> Digest:
    """A digest with attacks in every place that holds text of the data."""
    huge = ATTACKS[0] + "x" * 5_000_000
    examples = [example(at) for at in range(clusters)]
    examples[1] = dataclasses.replace(examples[1], inputs=(huge, *examples[1].inputs[1:]))
    hits = [
        ContaminationHit(
            ATTACKS[at % 7], "record", "mmlu", f"Hit {at} {ATTACKS[at % 7]}", *ATTACKS[:3]
        )
        for at in range(30)
    ]
    hits[3] = dataclasses.replace(hits[3], question=huge)
    bins = (1,) * 20
    return Digest(
        release_name=ATTACKS[0],
        created_at=ATTACKS[1],
        run=ATTACKS[2],
        config_fingerprint=ATTACKS[3],
        counts=Counts(5_000, 4_500, 1_000, 500, 500, 600, 500),
        fates={"original": 500, "merged": 1_400, "left_out:cluster_rejected": 2_000}
        | {"duplicate": 500, "quarantined": 100, f"left_out:{ATTACKS[1]}": 500},
        sources=tuple(SourceRows(attack, attack, 9) for attack in (*ATTACKS, huge)),
        release_licences=dict.fromkeys(ATTACKS, 3),
        quarantine=dict.fromkeys(ATTACKS, 2),
        ratings=(1, 2, 3, 2, 1, 0),
        curation=curation(),
        quality_pool=bins,
        quality_release=bins,
        long_tail_pool=bins,
        long_tail_release=bins,
        cluster_sizes={2: 12_000, 3: 345},
        clusters=dict(zip(VERDICTS, (500, 2_000, 9_000, 845), strict=True)),
        cohesion=bins,
        rewards={"combined": bins, ATTACKS[1]: bins},
        accept_at=0.5,
        rejects={"low_quality": 60, "cut_off": 30, ATTACKS[0]: 9, "never_shown": 1},
        compliance=Compliance(Share(1, 2), Share(2, 2)),
        examples=tuple(examples),
        stages=(
            StageRow(
                "rate", 9, 9, 0, 2.0, ATTACKS[0], ATTACKS[1], 99, {ATTACKS[2]: 3}, {ATTACKS[0]: 4}
            ),
            StageRow(ATTACKS[0], 9, 9, 0, 2.0),
        ),
        timeline=timeline_of(SPANS),
        engine=engine_use(SPANS, 700.0, 10_000),
        contamination=tuple(hits),
        contamination_counts={"mmlu": 28, ATTACKS[0]: 2},
        models=(ModelUsed(ATTACKS[0], ATTACKS[1], ATTACKS[2]),),
        tables={ATTACKS[1]: 3},
        notes=(*ATTACKS, huge),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A report with as many clusters as one shows."""
    found = tmp_path_factory.mktemp("report") / "report.html"
    found.write_text(render_page(hostile_digest(500)), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Chromium) -> Iterator[Chromium]:
    """A desktop window; whatever a test does, the page must not complain or ask for anything."""
    started.screen(1280, 900)
    yield started
    assert started.complaints() == []
    assert started.requests() == []
    assert started.run("document.body.id") == ""


def draw_all(browser: Chromium) -> None:
    browser.wait("document.documentElement.dataset.figures === 'ready'")
    browser.run(
        "dispatchEvent(new Event('beforeprint')), dispatchEvent(new Event('afterprint')), 0"
    )


def choose(browser: Chromium, place: str, value: str) -> None:
    """Set a control as a reader does: its value, then the event."""
    browser.run(
        f"document.getElementById({json.dumps(place)}).value = {json.dumps(value)},"
        f"document.getElementById({json.dumps(place)})"
        ".dispatchEvent(new Event('input', {bubbles: true})), 0"
    )


def status(browser: Chromium) -> str:
    return browser.run("document.getElementById('status').textContent")


def card(browser: Chromium) -> str:
    return browser.run("document.getElementById('card').innerText")


def test_figures_are_drawn_and_attacks_stay_text(browser, page):
    browser.open(page)
    draw_all(browser)
    browser.wait("document.querySelectorAll('.plot').length > 5")
    browser.wait(
        "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))"
    )
    assert (
        browser.run("document.querySelectorAll('main img, main script, main iframe').length") == 0
    )
    # Links lead to places in the page; figures have a few of the library's own, without a target.
    hrefs = browser.run(
        "[...document.querySelectorAll('[href]')].map((link) => link.getAttribute('href'))"
    )
    assert all(href.startswith(("#", "data:,")) for href in hrefs)
    attributes = browser.run(
        "[...document.querySelectorAll('main *')].flatMap((node) => node.getAttributeNames())"
        ".filter((name) => name.startsWith('on')).length"
    )
    assert attributes == 0
    text = browser.run("document.body.innerText")
    assert "\u202e" not in text
    assert "[U+202E]txt.exe" in text
    assert "49" not in browser.run("document.querySelector('.notes').innerText")
    shown = browser.run("document.getElementById('curation').textContent")
    assert ATTACKS[1] in shown
    drawn = "[...document.querySelectorAll('#curation .main-svg')].length"
    assert browser.run(drawn) >= 3


def test_every_cluster_can_be_opened_and_holds_only_text(browser, page):
    browser.open(page)
    for at in (0, 1, 2, 3, 4, 5, 6, 11, 22):
        browser.run(f"location.hash = '#cluster={key_of(at)}', 0")
        browser.wait(f"document.querySelector('#card code').textContent === '{key_of(at)}'")
        tags = set(
            browser.run("[...document.querySelectorAll('#card *')].map((node) => node.localName)")
        )
        assert not tags & {"img", "script", "a", "b", "i", "svg", "iframe"}
        shown = browser.run("document.getElementById('card').textContent")
        assert f"member 1 of cluster {at}?" in shown
    browser.run(f"location.hash = '#cluster={key_of(1)}', 0")
    browser.wait(f"document.querySelector('#card code').textContent === '{key_of(1)}'")
    assert "Cut here: 4,998,550 more characters" in card(browser)


def test_filters_and_search_find_what_is_there(browser, page):
    browser.open(page)
    assert status(browser) == "500 clusters"
    assert "500 of 12,345 clusters shown" in browser.run("document.body.innerText")
    choose(browser, "verdict", "verdict:not_distilled")
    assert status(browser) == "125 of 500 clusters match"
    assert "No sample was drawn." in card(browser)
    expected = sum(
        any(found.reason == "cut_off" for found in example(at).samples) for at in range(500)
    )
    choose(browser, "verdict", "reason:cut_off")
    assert status(browser) == f"{expected} of 500 clusters match"
    assert "Cut off" in card(browser)
    choose(browser, "task", "mcq")
    fewer = int(status(browser).split()[0])
    assert 0 < fewer < expected
    browser.click("#clear")
    browser.wait("document.getElementById('status').textContent === '500 clusters'")
    choose(browser, "query", "NEEDLE41")
    assert status(browser) == "1 of 500 clusters match"
    assert key_of(41) in card(browser)
    assert browser.run("document.querySelector('#card mark').textContent") == "needle41"
    choose(browser, "query", ATTACKS[1])
    assert int(status(browser).split()[0]) > 10
    assert browser.run("document.querySelectorAll('#card img').length") == 0
    choose(browser, "query", "no such text anywhere")
    assert status(browser) == "0 of 500 clusters match"
    assert "No cluster matches." in card(browser)


def test_sorting_and_pages(browser, page):
    browser.open(page)

    def column(name: str) -> list[float]:
        rows = browser.run("[...document.querySelectorAll('.row-facts')].map((r) => r.textContent)")
        patterns = {"cohesion": r"rows · (\d\.\d\d)", "size": r"(\d+) rows"}
        return [float(re.findall(patterns[name], row)[0]) for row in rows]

    choose(browser, "sort", "cohesion-down")
    first = column("cohesion")
    assert len(first) == 12
    assert first == sorted(first, reverse=True)
    browser.click("#page-after")
    second = column("cohesion")
    assert max(second) <= min(first)
    assert browser.run("document.getElementById('page-at').textContent") == "2 / 42"
    choose(browser, "sort", "size-up")
    assert column("size") == [2] * 12
    scores = "[...document.querySelectorAll('.row-score')].map((r) => r.textContent)"
    choose(browser, "sort", "reward-up")
    lowest = browser.run(scores)
    assert lowest == sorted(lowest)
    assert "" not in lowest


def test_a_deep_link_opens_its_cluster_and_back_leads_back(browser, page):
    browser.open(page, f"#cluster={key_of(123)}")
    assert key_of(123) in card(browser)
    top = browser.run("document.getElementById('detail').getBoundingClientRect().top")
    assert 0 <= top < 450
    assert browser.run("document.querySelector('.row[aria-current]').hash").endswith(key_of(123))
    browser.click("#list .row")
    browser.wait(f"!document.getElementById('card').textContent.includes('{key_of(123)}')")
    browser.run("history.back(), 0")
    browser.wait(f"document.getElementById('card').textContent.includes('{key_of(123)}')")
    browser.run("location.hash = '#cluster=%3Cimg%20src=x%20onerror=alert(1)%3E', 0")
    browser.wait("document.getElementById('card').textContent.includes('is not among those')")
    browser.run("location.hash = '#cluster=%E0%A4%A', 0")
    browser.wait("document.getElementById('card').textContent.includes('member 1')")


def test_the_keyboard_steps_and_opens(browser, page):
    browser.open(page)
    keys = "document.querySelector('#card code').textContent"
    first = browser.run(keys)
    browser.key("j")
    browser.wait(f"{keys} !== '{first}'")
    second = browser.run(keys)
    assert browser.run("location.hash") == f"#cluster={second}"
    browser.key("k")
    browser.wait(f"{keys} === '{first}'")
    browser.run("document.querySelectorAll('#list .row')[4].focus(), 0")
    wanted = browser.run("document.activeElement.hash")
    browser.key("Enter")
    browser.wait(f"location.hash === '{wanted}'")
    browser.wait("document.activeElement.id === 'detail'")
    browser.run("document.getElementById('query').focus(), 0")
    browser.key("j")
    assert browser.run("document.getElementById('query').value") == "j"
    assert browser.run(
        "[...document.querySelectorAll('#browser input, #browser select')]"
        ".every((control) => control.labels.length === 1)"
    )


def test_bars_and_bands_filter_the_browser(browser, page):
    browser.open(page)
    browser.click("#rewards [data-pick='reason:low_quality']")
    assert browser.run("document.getElementById('verdict').value") == "reason:low_quality"
    assert "Low quality" in card(browser)
    browser.click("#fates [data-pick='verdict:rejected'] text")
    assert status(browser) == "125 of 500 clusters match"
    assert browser.run("document.activeElement.id") == "clusters"
    browser.click("#rewards [data-pick='reason:never_shown']")
    assert status(browser) == "0 of 500 clusters match"


def test_hits_can_be_searched(browser, page):
    browser.open(page)
    choose(browser, "hit-query", "Hit 17")
    visible = "[...document.querySelectorAll('#hits tbody tr')].filter((row) => !row.hidden).length"
    assert browser.run(visible) == 1
    assert browser.run("document.getElementById('hit-status').textContent") == "1 of 30 match"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_can_read_it(browser, page, dark):
    browser.screen(390, 844, dark=dark, touch=True)
    browser.open(page)
    draw_all(browser)
    width = "document.documentElement.scrollWidth"
    assert browser.run(width) <= 390
    assert browser.run("getComputedStyle(document.getElementById('detail')).display") == "none"
    targets = browser.run(
        "[...document.querySelectorAll('button, input, select, .row')]"
        ".map((node) => node.getBoundingClientRect().height).filter((height) => height > 0)"
    )
    assert targets
    assert min(targets) >= 40
    browser.click("#list .row")
    browser.wait("getComputedStyle(document.getElementById('detail')).display !== 'none'")
    assert browser.run("getComputedStyle(document.querySelector('.list-pane')).display") == "none"
    assert browser.run(width) <= 390
    browser.click("#back")
    browser.wait("getComputedStyle(document.getElementById('detail')).display === 'none'")


CONTRASTS = """
(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const over = (top, below) => {
    const alpha = top[3] ?? 1;
    return [0, 1, 2].map((at) => alpha * top[at] + (1 - alpha) * below[at]);
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      layers.push(color);
      if ((color[3] ?? 1) === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((value) => value / 255)
      .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || node.closest("svg, :disabled, script, style")) continue;
    if (!node.getClientRects().length) continue;
    const below = ground(node);
    const pair = [light(over(parse(getComputedStyle(node).color), below)), light(below)].sort();
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    found.push([ratio, node.className, texts.currentNode.data.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 5);
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("at", [0, 1, 2, 3], ids=VERDICTS)
def test_text_stands_out_from_its_ground(browser, page, dark, at):
    browser.screen(1280, 900, dark=dark)
    browser.open(page, f"#cluster={key_of(at)}")
    page_color = browser.run("getComputedStyle(document.body).backgroundColor")
    assert page_color == ("rgb(23, 27, 34)" if dark else "rgb(255, 255, 255)")
    lowest = browser.run(CONTRASTS)
    assert lowest
    assert lowest[0][0] >= 4.5, lowest


def test_five_hundred_clusters_open_and_filter_at_once(browser, page, record_property):
    assert page.stat().st_size < 15_000_000
    browser.open(page)
    opened = browser.run("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    started = time.monotonic()
    choose(browser, "query", "answer 4")
    first = time.monotonic() - started
    script = """(() => {
      const before = performance.now();
      const query = document.getElementById("query");
      for (const text of ["a", "answer", "word word", "cluster 40", ""]) {
        query.value = text;
        query.dispatchEvent(new Event("input"));
        document.getElementById("list").getBoundingClientRect();
      }
      return (performance.now() - before) / 5;
    })()"""
    each = browser.run(script)
    print(f"opened in {opened:.0f} ms, first search {1000 * first:.0f} ms, later {each:.0f} ms")
    record_property("opened_ms", opened)
    # Ten times what a laptop needs: this tells a page that hangs, not one that is a little slower.
    assert opened < 10_000
    assert first < 5
    assert each < 1_000


def test_it_prints(browser, page):
    browser.screen(1280, 900, dark=True)
    browser.open(page)
    draw_all(browser)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) < 40
    browser.call("Emulation.setEmulatedMedia", media="print")
    shown = browser.run("getComputedStyle(document.body).backgroundColor")
    hidden = browser.run("getComputedStyle(document.getElementById('controls')).display")
    browser.call("Emulation.setEmulatedMedia", media="")
    assert (shown, hidden) == ("rgb(255, 255, 255)", "none")


def test_the_driver_sees_complaints_and_requests(started, tmp_path):
    """The checks above would not be worth much if they could not fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>fetch('http://127.0.0.1:9/x'); console.log('hello')</script>")
    started.open(bad)
    started.wait("true")
    assert any("hello" in text for text in started.complaints())
    assert started.requests() == ["http://127.0.0.1:9/x"]
    started.events.clear()
