"""The report page: one self-contained HTML string, readable without a network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import jinja2
from plotly.offline import get_plotlyjs

from mixup.ledger import FATE_LEFT_OUT, left_out
from mixup.quality.calibration import wilson_interval
from mixup.report import figures
from mixup.report.charts import charts_of, noise_words, scores_words
from mixup.report.clusters import (
    TEXT_CHARS,
    VERDICT_LABELS,
    reward_order,
    shown_clusters,
    verdict_of,
)
from mixup.report.curation_charts import (
    calibration_words,
    cells_words,
    curation_charts,
    ratings_words,
)
from mixup.report.digest import Digest, Share
from mixup.report.flow import flow_tree, layout
from mixup.report.wording import (
    FATES,
    MISSING,
    amount,
    amount_label,
    clip,
    duration,
    fate_label,
    number,
    percent,
    rate,
    score,
    seconds,
    sentence,
    shortfall,
    split_text,
    visible,
    words,
)


@dataclass(frozen=True)
class Bar:
    """A labeled count.

    Attributes:
        label: What is counted.
        count: How many there are.
        share: The part of the whole; None if the whole is 0.
        kind: A style name.
        pick: What the browser of clusters is to show when the bar is chosen.
    """

    label: str
    count: int
    share: float | None
    kind: str
    pick: str | None = None


def render_page(digest: Digest) -> str:
    """The report of a release as one HTML document.

    Scripts, styles and figures are inline and the content policy forbids every request. All text
    of the data is escaped, and control characters in it are shown by their code points.
    """
    every = (*charts_of(digest), *curation_charts(digest.curation))
    charts = {chart.id: chart for chart in every}
    drawn = {name: json.loads(str(chart.figure.to_json())) for name, chart in charts.items()}
    html = template("page.html.j2").render(
        digest=digest,
        fates=_fate_bars(digest.fates),
        fates_total=sum(digest.fates.values()),
        flow=layout(flow_tree(digest.fates)),
        clusters=shown_clusters(digest),
        quarantine=_reasons(digest.quarantine),
        rejects=_rejects(digest.rejects),
        licences=bars_of(digest.release_licences, "plain"),
        contamination=bars_of(digest.contamination_counts, "quarantined"),
        shortfall=shortfall(digest.counts),
        near_duplicates=digest.fates.get(left_out("near_duplicate")),
        slowest=max((row.seconds or 0.0 for row in digest.stages), default=0.0),
        charts=charts,
        reward_charts=[charts[f"reward-{at}"] for at in range(len(digest.rewards))],
        figures=drawn,
        palette=dict(figures.DARK),
        plotly=_packed_plotly(),
    )
    return html.lstrip()


def interval(share: Share) -> tuple[float, float] | None:
    """The 95 % Wilson interval of a share, in [0, 1]; None for no trials."""
    return wilson_interval(share.ok, share.total)


def _share(share: Share) -> float | None:
    return _part(share.ok, share.total)


def _reasons(counts: Mapping[str, int]) -> list[Bar]:
    labeled = {sentence(words(name)): count for name, count in counts.items()}
    return bars_of(labeled, "dropped")


def _rejects(counts: Mapping[str, int]) -> list[Bar]:
    """Reasons of rejected samples, each leading to the clusters that have such a sample."""
    total = sum(counts.values())
    return [
        Bar(sentence(words(name)), count, _part(count, total), "dropped", f"reason:{visible(name)}")
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def bars_of(counts: Mapping[str, int], kind: str) -> list[Bar]:
    """Counts with their shares of the sum, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(counts.values())
    return [Bar(clip(name), count, _part(count, total), kind) for name, count in ordered]


def _fate_bars(fates: Mapping[str, int]) -> list[Bar]:
    order, total = list(FATES), sum(fates.values())

    def place(name: str) -> tuple[int, int, str]:
        kind = name.partition(":")[0]
        return (order.index(kind) if kind in order else len(order), -fates[name], name)

    return [
        Bar(fate_label(name), fates[name], _part(fates[name], total), _fate_kind(name))
        for name in sorted(fates, key=place)
    ]


def _fate_kind(name: str) -> str:
    kind = name.partition(":")[0]
    return kind if kind in FATES else FATE_LEFT_OUT


def _part(count: int, total: int) -> float | None:
    return count / total if total else None


@cache
def _packed_plotly() -> str:
    """The pinned library, gzipped and in base64: 1.9 MB instead of 4.8, unpacked by the page."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode("utf-8"), mtime=0)).decode("ascii")


@cache
def template(name: str) -> jinja2.Template:
    """A template of this folder, with what it may use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mixup", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        noise=noise_words,
        scores=scores_words,
        ratings=ratings_words,
        calibration=calibration_words,
        cells=cells_words,
        visible=visible,
        words=words,
        sentence=sentence,
        percent=percent,
        number=number,
        score=score,
        amount=amount,
        amount_label=amount_label,
        clip=clip,
        duration=duration,
        seconds=seconds,
        rate=rate,
        verdict=verdict_of,
        share=_share,
        interval=interval,
        split=split_text,
    )
    environment.globals.update(
        reward_order=reward_order,
        verdict_labels=VERDICT_LABELS,
        text_chars=TEXT_CHARS,
        missing=MISSING,
    )
    return environment.get_template(name)
