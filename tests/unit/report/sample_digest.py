"""A synthetic digest, with hostile text where text of the data is shown."""

from mixup.quality.rater_errors import RaterErrors
from mixup.quality.rating_noise import RatingNoise
from mixup.quality.scores import PoolScores
from mixup.quality.threshold import PrecisionCurve
from mixup.records import Turn
from mixup.report.curation import (
    Calibration,
    CellsFound,
    CuratedRatings,
    DuplicatePair,
    Duplicates,
    PairText,
    ScoreCuration,
    size_bins,
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
from mixup.report.timeline import engine_use, timeline_of

HOSTILE = (
    "<script>document.title='pwned'</script>",
    "</script><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %} \"quoted\" 'single' & more",
    "evil \u202etxt.exe\u202c and \u0000 zero \ud800",
    '<a href="javascript:alert(1)">click</a>',
)

COUNTS = Counts(
    occurrences=20_000,
    records=18_244,
    rows=1_612,
    distilled=612,
    originals=1_000,
    wanted_distilled=1_000,
    wanted_originals=1_000,
)


def bell(center: int, top: int, width: float = 3.0) -> tuple[int, ...]:
    """Twenty counts around a center bin."""
    return tuple(round(top * 2 ** (-(((at - center) / width) ** 2))) for at in range(20))


def sample(at: int, *, accepted: bool) -> SampleExample:
    question, answer = (
        "How do plants turn sunlight into food, and why does it matter for the air we breathe?",
        "Plants capture sunlight with chlorophyll and use it to combine carbon dioxide and water "
        "into glucose. Oxygen is released on the way, so photosynthesis feeds the plant and keeps "
        "the air breathable.",
    )
    turns = (Turn("user", question), Turn("assistant", answer))
    text = f"<think>\nMerge.\n</think>\n\n<answer>\nQ: {question}\nA: {answer}\n</answer>"
    rewards: dict[str, float | None] = {
        "format": 1.0,
        "alignment": 0.84,
        "quality": 0.91,
        "coverage": 0.77,
    }
    if accepted:
        return SampleExample(text, "Both ask the same.", turns, "stop", True, rewards, 0.88, True)
    if at % 2:
        broken = {"format": 0.0, "alignment": None, "quality": None, "coverage": None}
        raw = f"Sure! Here is the answer: {HOSTILE[at % 5]}"
        return SampleExample(raw, None, (), "length", False, broken, None, False, "no_answer_block")
    low = rewards | {"quality": 0.21}
    return SampleExample(
        text, "Short.", turns, "stop", False, low, 0.49, False, "reward_below_threshold"
    )


def example(at: int) -> ClusterExample:
    inputs = (
        "Q: what do plant eat\nA: sun light",
        "Q: Explain photosynthesis.\nA: It is how plants make food from light." + " More." * 160,
        f"Q: plants and air?\nA: {HOSTILE[at % 5]}",
    )
    samples = (sample(at, accepted=True), sample(at, accepted=False))
    return ClusterExample(f"{at:032x}", "qa", 0.81, inputs, samples)


# Two engines over 100 s, the second with a wait of 30 s; rewards work 8 s, 6 of them beside them.
SPANS = (
    ("generate:0", 1_000.0, 1_090.0),
    ("generate:1", 1_000.0, 1_040.0),
    ("generate:1", 1_070.0, 1_100.0),
    ("quality", 1_041.0, 1_043.0),
    ("coverage", 1_042.0, 1_045.0),
    ("encode", 1_098.0, 1_102.0),
)
HITS = tuple(
    ContaminationHit(
        key=f"{at:032x}",
        kind=("record", "sample")[at % 2],
        benchmark=("mmlu", "truthfulqa", HOSTILE[1])[at % 3],
        question=f"Which planet is nearest to the sun? {HOSTILE[at % 5]}",
        place=f"pool.jsonl, line {at} {HOSTILE[(at + 1) % 5]}",
        source=HOSTILE[(at + 2) % 5],
        matched=HOSTILE[(at + 3) % 5],
    )
    for at in range(7)
)


def pair(at: int) -> DuplicatePair:
    left = PairText(
        f"{at:032x}", f"user: {HOSTILE[at % 5]}\n\nassistant: blue", 70 * (at == 0), (HOSTILE[1],)
    )
    kept = PairText(f"{at + 99:032x}", f"user: Which color has the sky? {at}", 0, ("dolly",))
    return DuplicatePair(
        left, kept, None if at == 3 else 0.951 + at / 1_000, (True, False, None)[at % 3]
    )


CURATION = ScoreCuration(
    threshold=4,
    calibration=Calibration(
        rows=(4_000, 2_500, 1_500, 1_000, 0, 900, 1_100, 1_500, 1_900, 1_100),
        predicted=(200.0, 375.0, 375.0, 350.0, 0.0, 495.0, 715.0, 1_125.0, 1_615.0, 1_045.0),
        high=(240, 350, 420, 330, 0, 540, 700, 1_140, 1_500, 1_030),
    ),
    ratings=CuratedRatings(
        rated=16_640,
        counts=(
            (780, 20, 0, 0, 0, 0),
            (15, 2_300, 85, 0, 0, 0),
            (0, 60, 4_960, 80, 0, 0),
            (0, 0, 95, 5_445, 60, 0),
            (0, 0, 0, 70, 2_420, 10),
            (0, 0, 0, 0, 20, 220),
        ),
        tested=15_400,
        suspicious=2_044,
        replaced=515,
    ),
    cells=CellsFound(
        cells=8,
        rows=18_244,
        most=3_890,
        cap=4_000,
        sizes=size_bins((3_890, 3_100, 2_950, 2_400, 2_000, 1_800, 1_304, 800), 4_000),
        visits=17_000,
        done=3,
        drift=0.031,
        refit_at=0.25,
        new=1_250,
    ),
    duplicates=Duplicates(
        exact=1_690,
        near=812,
        same_source=500,
        other_source=300,
        similarity=0.95,
        pairs=tuple(pair(at) for at in range(7)),
    ),
)


def full_digest() -> Digest:
    """A digest with every part filled and the hostile texts in every free field."""
    return Digest(
        release_name="nightly-2025-11-22",
        created_at="2025-11-22T03:14:07+00:00",
        run="run-0007-8c1f",
        config_fingerprint="0f3a9c5de1b24477a1c0b2d3e4f50617",
        counts=COUNTS,
        fates={
            "original": 1_000,
            "merged": 1_874,
            "duplicate": 1_690,
            "quarantined": 66,
            "left_out:quality_below_threshold": 9_020,
            "left_out:no_near_neighbor": 4_870,
            "left_out:ranked_below_the_cut": 1_480,
        },
        sources=(
            SourceRows("stanford_alpaca", "cc-by-nc-4.0", 9_800),
            SourceRows("dolly", "CC-BY-SA-3.0", 7_200),
            SourceRows(HOSTILE[4], HOSTILE[1], 3_000),
        ),
        release_licences={
            "apache-2.0": 200,
            "cc-by-nc-4.0 AND cc-by-sa-3.0": 612,
            "cc-by-sa-3.0": 800,
        },
        quarantine={"not_json": 41, "no_answer": 20, HOSTILE[0]: 5},
        ratings=(800, 2_400, 5_100, 5_600, 2_500, 240),
        noise=RatingNoise(
            source="shrunk",
            detail="1,200 samples; at least 5,000 are needed",
            samples=1_200,
            classes=(1, 4),
            matrix=((0.9, 0.1), (0.25, 0.75)),
            low=((0.85, 0.05), (None, None)),
            high=((0.95, 0.15), (None, None)),
            prior=(0.7, 0.3),
        ),
        scores=PoolScores(
            predictor="a logistic regression on embeddings (prior precision 3)",
            effective_votes=1.5,
            votes_detail="those that predict the ratings of rows from their neighbors best",
            keep_at=0.62,
            margin=0.05,
            rater=RaterErrors(),
            rater_detail="the default: it could not be told",
            keep_detail="the lowest with a precision of 0.8",
            curve=PrecisionCurve((0.1, 0.62, 0.9), (20_000, 6_000, 400), (0.41, 0.8, 0.93), 20_000),
            untested="the errors of the rater are not known: 1,200 samples",
        ),
        curation=CURATION,
        quality_pool=bell(4, 3_000, 4),
        quality_release=bell(17, 400),
        long_tail_pool=bell(12, 900),
        long_tail_release=bell(13, 90),
        cluster_sizes={2: 410, 3: 260, 4: 140, 5: 70, 7: 12, 12: 3},
        clusters={"released": 612, "accepted": 0, "rejected": 283, "not_distilled": 0},
        cohesion=bell(16, 200, 2),
        rewards={
            "combined": bell(15, 220),
            "coverage": bell(14, 210),
            "quality": bell(13, 180, 4),
            "alignment": bell(16, 260),
            "format": (*(380,), *(0,) * 18, 1_410),
        },
        missing_rewards={"quality": 12, "combined": 12},
        accept_at=0.6,
        rejects={"reward_below_threshold": 700, "no_answer_block": 380, "copied_input": 44},
        compliance=Compliance(Share(412, 895), Share(893, 895)),
        examples=tuple(example(at) for at in range(20)),
        stages=(
            StageRow("ingest", None, 20_000, 66, 41.2, "2 files, 66 lines quarantined"),
            StageRow("embed", 18_244, 18_244, 0, 312.9),
            StageRow(
                "rate",
                18_244,
                16_640,
                1_604,
                5_120.0,
                unit="records",
                tokens=2_560_000,
                parts={"rated": 16_640, "unrated": 1_604, HOSTILE[0]: 3},
                extra={"requests": 18_301, "cost_microdollars": 4_250_000, HOSTILE[1]: 2},
            ),
            StageRow("distill", 895, 1_790, 0, 8_007.5, HOSTILE[2]),
            StageRow("select", 4_302, 1_612, 2_690, 3.0),
        ),
        timeline=timeline_of([*SPANS, (HOSTILE[4], 1_000.0, 1_001.0)]),
        engine=engine_use(SPANS, 125.0, 500_000),
        contamination=HITS,
        contamination_counts={"mmlu": 1_200, "truthfulqa": 2, HOSTILE[1]: 2},
        models=(
            ModelUsed("distiller", "Qwen/Qwen2.5-1.5B-Instruct", "5d1e0c3b9a7f4e2288aa01c4"),
            ModelUsed("encoder", HOSTILE[1], "77b0e1c3d5f7"),
        ),
        tables={"occurrences": 12, "records": 12, "curation": 9, "samples": 31},
        notes=("1,604 rows are unrated; they take no part in the release.", HOSTILE[3]),
    )


def empty_digest() -> Digest:
    """The digest of a run that read nothing."""
    return Digest("empty", "2025-11-22T03:14:07Z", "run-0", "00", Counts(0, 0, 0, 0, 0, 0, 0), {})
