"""The digest: everything the report page and the dataset card show, as plain data.

A stage gathers it from the tables; the page and the card are pure functions of it, so a report can
be drawn again from the stored JSON without the workspace.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import pydantic

from mixup.errors import ShapeError
from mixup.quality.rating_noise import RatingNoise
from mixup.quality.scores import PoolScores
from mixup.records import Turn
from mixup.report.curation import ScoreCuration
from mixup.report.timeline import EngineUse, Timeline

RATING_BINS = 6  # observed ratings 0 to 5
VERDICTS = ("released", "accepted", "rejected", "not_distilled")  # "accepted": but not selected
UNIT_BINS = 20  # values in [0, 1]: bin i counts [i/20, (i+1)/20), the last one with its end

_UNIT_HISTOGRAMS = (
    "quality_pool",
    "quality_release",
    "long_tail_pool",
    "long_tail_release",
    "cohesion",
)


@dataclass(frozen=True)
class Counts:
    """Rows of the release, wanted and reached, and what they were made from.

    Attributes:
        occurrences: rows read from the sources, quarantined ones included.
        records: distinct records among them.
        rows: rows of the release; equals distilled + originals.
        distilled: rows written by the distiller.
        originals: rows kept as they came.
        wanted_distilled: distilled rows that the config asked for.
        wanted_originals: original rows that the config asked for.
    """

    occurrences: int
    records: int
    rows: int
    distilled: int
    originals: int
    wanted_distilled: int
    wanted_originals: int


@dataclass(frozen=True)
class SourceRows:
    """Rows read from one source under one licence (None where the rows name none)."""

    source: str | None
    licence: str | None
    rows: int


@dataclass(frozen=True)
class Share:
    """``ok`` of ``total`` samples."""

    ok: int = 0
    total: int = 0


@dataclass(frozen=True)
class Compliance:
    """Samples whose text keeps the required format, by how they were drawn."""

    unconstrained: Share = Share()
    constrained: Share = Share()


@dataclass(frozen=True)
class SampleExample:
    """One distilled sample of a shown cluster.

    Attributes:
        text: the raw text that the distiller wrote.
        thought: its reasoning; None if the text could not be parsed.
        turns: the distilled pair; empty if the text could not be parsed.
        finish: why generation ended, such as ``stop`` or ``length``.
        constrained: whether decoding was held to the format.
        rewards: component to value in [0, 1], None if missing.
        combined: the combined reward, None if a component is missing.
        accepted: whether the sample passed.
        reason: why it did not; None for an accepted one.
    """

    text: str
    thought: str | None
    turns: tuple[Turn, ...]
    finish: str | None
    constrained: bool
    rewards: dict[str, float | None]
    combined: float | None
    accepted: bool
    reason: str | None = None


@dataclass(frozen=True)
class ClusterExample:
    """A shown cluster.

    Attributes:
        cluster: its key.
        task: its task.
        cohesion: mean pairwise cosine of its members.
        inputs: texts of its members.
        samples: what the distiller made of them.
        verdict: one of ``VERDICTS``; empty in digests that do not tell.
        cut: place of a text (see ``mixup.report.clusters``) to characters that were left out.
    """

    cluster: str
    task: str
    cohesion: float | None
    inputs: tuple[str, ...]
    samples: tuple[SampleExample, ...]
    verdict: str = ""
    cut: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRow:
    """What one stage did; counts are None where a stage has no such unit.

    Attributes:
        stage: its name.
        rows_in: units that came in.
        rows_out: units that were not dropped.
        dropped: units that were.
        seconds: wall time.
        note: what else is to say.
        unit: what is counted, in the plural.
        tokens: tokens read or written, where the stage counts them.
        parts: the disjoint groups into which the units went.
        extra: other counts, such as requests to a judge.
    """

    stage: str
    rows_in: int | None
    rows_out: int | None
    dropped: int | None
    seconds: float | None
    note: str = ""
    unit: str = "rows"
    tokens: int | None = None
    parts: dict[str, int] = field(default_factory=dict)
    extra: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelUsed:
    """A model by its role in the run, its name, and the revision that keys its outcomes."""

    role: str
    name: str
    revision: str


@dataclass(frozen=True)
class ContaminationHit:
    """A row of the pool, or a distilled sample, that holds an evaluation question.

    Attributes:
        key: uid of the record or key of the sample.
        kind: ``exact`` or ``ngram``.
        benchmark: the evaluation file's name.
        question: the question, cut to 300 characters.
        place: path:offset of the question.
        source: source of the row, or ``distilled``.
        matched: the words that matched.
    """

    key: str
    kind: str
    benchmark: str
    question: str
    place: str
    source: str
    matched: str


@dataclass(frozen=True)
class Digest:
    """Everything that the report shows.

    Attributes:
        release_name: name of the release.
        created_at: when it was made, ISO 8601 with zone.
        run: id of the run.
        config_fingerprint: content key of the resolved config.
        counts: rows wanted and reached.
        fates: fate to occurrences, summing to ``counts.occurrences``: ``original``, ``merged``,
            ``duplicate``, ``quarantined`` and ``left_out:<reason>``.
        sources: rows read per source and licence.
        release_licences: rows of the release per licence, a union joined by " AND ".
        quarantine: reason to occurrences.
        ratings: occurrences or records by observed rating 0 to 5.
        noise: what is known of the rater's errors; None where no library was fitted.
        scores: the numbers with which the pool was scored; None in digests that do not tell.
        curation: what else there is to show of score curation; None in digests that do not tell.
        quality_pool: unit bins of P(rating >= threshold) over the pool.
        quality_release: the same over the rows of the release.
        long_tail_pool: unit bins of the long-tail score over the pool.
        long_tail_release: the same over the rows of the release; a distilled row has its cluster's.
        cluster_sizes: members to clusters.
        clusters: verdict, one of ``VERDICTS``, to clusters; empty in digests that do not tell.
        cohesion: unit bins of the mean pairwise cosine of the clusters.
        rewards: component, ``combined`` included, to unit bins over all samples.
        missing_rewards: component to samples without a value.
        accept_at: combined reward from which a sample is accepted, if there is one threshold.
        rejects: reason to samples.
        compliance: format compliance by kind of decoding.
        examples: clusters shown with their samples, so ordered that any first part of them is a
            fair draw of each verdict.
        stages: stages in the order they ran.
        timeline: who worked when in the distill stage.
        engine: how busy its engines were; None if none is on record.
        models: models that took part.
        tables: table to the version that the release read.
        notes: plain statements that a reader must see, such as a shortfall.
        contamination: rows and samples left out for an evaluation question, a draw of them.
        contamination_counts: evaluation file to rows of the pool left out, all of them.

    Raises:
        ShapeError: if a histogram has the wrong number of bins.
    """

    release_name: str
    created_at: str
    run: str
    config_fingerprint: str
    counts: Counts
    fates: dict[str, int]
    sources: tuple[SourceRows, ...] = ()
    release_licences: dict[str, int] = field(default_factory=dict)
    quarantine: dict[str, int] = field(default_factory=dict)
    ratings: tuple[int, ...] = (0,) * RATING_BINS
    noise: RatingNoise | None = None
    scores: PoolScores | None = None
    curation: ScoreCuration | None = None
    quality_pool: tuple[int, ...] = (0,) * UNIT_BINS
    quality_release: tuple[int, ...] = (0,) * UNIT_BINS
    long_tail_pool: tuple[int, ...] = (0,) * UNIT_BINS
    long_tail_release: tuple[int, ...] = (0,) * UNIT_BINS
    cluster_sizes: dict[int, int] = field(default_factory=dict)
    clusters: dict[str, int] = field(default_factory=dict)
    cohesion: tuple[int, ...] = (0,) * UNIT_BINS
    rewards: dict[str, tuple[int, ...]] = field(default_factory=dict)
    missing_rewards: dict[str, int] = field(default_factory=dict)
    accept_at: float | None = None
    rejects: dict[str, int] = field(default_factory=dict)
    compliance: Compliance = Compliance()
    examples: tuple[ClusterExample, ...] = ()
    stages: tuple[StageRow, ...] = ()
    timeline: Timeline = Timeline()
    engine: EngineUse | None = None
    contamination: tuple[ContaminationHit, ...] = ()
    contamination_counts: dict[str, int] = field(default_factory=dict)
    models: tuple[ModelUsed, ...] = ()
    tables: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("ratings", self.ratings, RATING_BINS)
        for name in _UNIT_HISTOGRAMS:
            _check(name, getattr(self, name), UNIT_BINS)
        for name, bins in self.rewards.items():
            _check(f"rewards[{name!r}]", bins, UNIT_BINS)


def _check(name: str, bins: tuple[int, ...], expected: int) -> None:
    if len(bins) != expected:
        raise ShapeError(f"{name} has {len(bins)} bins, expected {expected}")


_ADAPTER = pydantic.TypeAdapter(Digest)


def to_json(digest: Digest) -> str:
    """A digest as JSON.

    Raises:
        ValueError: if a number is NaN or infinite; what could not be computed is None.
    """
    return json.dumps(asdict(digest), indent=1, allow_nan=False)


def from_json(text: str) -> Digest:
    """The digest that `to_json` wrote.

    Raises:
        pydantic.ValidationError: if the text is not a digest.
        ShapeError: if a histogram has the wrong number of bins.
    """
    return _ADAPTER.validate_python(json.loads(text))
