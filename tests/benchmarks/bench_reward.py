"""The quality reward against plain scikit-learn, and rewards together against one by one.

    make bench ARGS="-k bench_reward"

1,000 answers against a library of 20,000 rows, as in the released code. That both give the same is
checked; times are only printed. With the workspace of ``make pool`` as MIXUP_BENCH_POOL the library
has its vectors, else random ones: for the time it does not matter. MIXUP_BENCH_REPEATS (3) repeats
take turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from contenders import THREADS, Contender
from figures import rate, ratio
from plain_reward import ALIGNED_FROM, NEIGHBORS, PlainQuality
from planted_waits import one_by_one, waiting_pools
from real_vectors import POOL, real_vectors
from threadpoolctl import threadpool_limits
from whole_pool import DATA

from mixup.actors.components import component_scores
from mixup.actors.requests import ScoreRequest, Texts, request_of
from mixup.actors.resources import cluster
from mixup.actors.reward_settings import RewardSettings
from mixup.actors.rewards import RewardPools
from mixup.actors.votes import Votes
from mixup.config import RayConfig, Similarity
from mixup.errors import RecordError
from mixup.models.encoder import SentenceEncoder
from mixup.quality.neighbors import top_k
from mixup.quality.posterior import expected_class, neighbor_votes, posterior
from mixup.quality.transition import fit_transition
from mixup.records import Turn
from mixup.text.parse import parse_distilled

REPEATS = int(os.environ.get("MIXUP_BENCH_REPEATS", "3"))
ANSWERS, LIBRARY, GROUP = 1000, 20_000, 4
WIDTH = 384
NEAR = Similarity(
    **{"near_duplicate": 0.95, "cluster_floor": 0.6},
    **{"alignment_low": 0.35, "alignment_high": ALIGNED_FROM},
)
SETTINGS = RewardSettings(
    mode="released_code",
    similarity=NEAR,
    threshold=4,
    neighbors=NEIGHBORS,
    effective_votes=float(NEIGHBORS),  # each vote counts fully
    encoder="e",
    library="l",
)
# The share of each rating class in the paper's pool; source: spec, 4.1.
SHARES = np.array([18_626, 44_401, 86_132, 87_975, 59_969, 3_829]) / 300_932

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """One thread for all that searches, as a reward actor has."""
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        yield


def ratings_of(vectors_LD: np.ndarray) -> np.ndarray:
    """Classes in the paper's shares, which go with a direction of space, and with chance."""
    random = np.random.default_rng(2)
    along = vectors_LD @ random.normal(size=vectors_LD.shape[1])
    mark = along / along.std() + 0.5 * random.normal(size=len(along))
    return np.searchsorted(np.quantile(mark, np.cumsum(SHARES)[:-1]), mark)


def vectors(count: int) -> np.ndarray:
    """Unit vectors of the pool, or random ones around topics."""
    if POOL:
        found = real_vectors()[:count]
        assert len(found) == count, f"{len(found)} vectors in {POOL}, want {count}"
        return found
    random = np.random.default_rng(3)
    centers = random.normal(size=(count // 40, WIDTH))
    found = centers[np.arange(count) % len(centers)] + 0.6 * random.normal(size=(count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def signs(count: int) -> np.ndarray:
    """Vectors of 256 times +-1/16: their products are exact, and many of them are equal."""
    return np.random.default_rng(4).choice([-1, 1], size=(count, 256)).astype(np.float32) / 16


def votes_of(vectors_LD: np.ndarray, ratings_L: np.ndarray) -> Votes:
    return Votes(vectors_LD, ratings_L, fit_transition(vectors_LD, ratings_L))


def expected(votes: Votes, vectors_MD: np.ndarray) -> np.ndarray:
    """The posterior mean rating of each answer, by ours."""
    classes = votes.transition.classes
    near = top_k(vectors_MD, votes.vectors_LD, NEIGHBORS)
    counted = neighbor_votes(votes.ratings_L, near.indices_MK, classes)
    return expected_class(posterior(counted, votes.transition), classes)


def requests_of(answers: Sequence[str]) -> list[ScoreRequest]:
    return [ScoreRequest(str(n), "qa", "", text, text, (), ()) for n, text in enumerate(answers)]


def quality(votes: Votes, requests: Sequence[ScoreRequest], vectors_MD: np.ndarray) -> list[float]:
    """The quality of answers, as the reward actor computes it."""
    texts = Texts({one.pair: row for row, one in enumerate(requests)}, vectors_MD, frozenset())
    found = component_scores("quality", requests, texts, SETTINGS, votes)
    return [float("nan") if score.value is None else score.value for score in found]


@pytest.mark.parametrize(
    ("made", "rows", "answers", "slack"),
    [
        pytest.param(vectors, LIBRARY, ANSWERS, 8, id="library"),
        pytest.param(signs, 2000, 300, 2000, id="ties"),
    ],
)
def test_both_give_the_same(
    made: Callable[[int], np.ndarray], rows: int, answers: int, slack: int
) -> None:
    """Not a figure but a check: equal to 1e-6, and ties broken alike."""
    found = made(rows + answers)
    library_LD, vectors_MD, ratings_L = found[:rows], found[rows:], ratings_of(found[:rows])
    plain = PlainQuality(library_LD, ratings_L, slack=slack)
    votes = votes_of(library_LD, ratings_L)
    np.testing.assert_allclose(votes.transition.matrix_CC, plain.matrix_CC, atol=1e-12)
    theirs = plain.expected(vectors_MD)
    np.testing.assert_allclose(expected(votes, vectors_MD), theirs, atol=1e-6)
    requests = requests_of([str(number) for number in range(answers)])
    rewards = plain.rewards(vectors_MD)
    assert quality(votes, requests, vectors_MD) == rewards
    assert set(rewards) == {0.0, 1.0}
    if made is signs:
        near = top_k(vectors_MD, library_LD, NEIGHBORS + 1).similarities_MK
        tied = (near[:, -1] == near[:, -2]).mean()
        assert tied > 0.2, tied
        # The order matters: with the rows turned round other ones are taken at the cut.
        turned = PlainQuality(library_LD[::-1], ratings_L[::-1], slack=slack)
        assert not np.allclose(turned.expected(vectors_MD), theirs, atol=1e-3)
    print(
        f"\n{answers:,} answers against {rows:,} rows: equal; expected ratings of "
        f"{theirs.min():.2f} to {theirs.max():.2f}, {np.mean(rewards):.0%} rewarded"
    )


def seconds_of(work: Callable[..., object], *given: object) -> float:
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def test_neighbors_and_posterior() -> None:
    """Answers a second from vectors on: all at once, a worker's share of a step, and one by one."""
    found = vectors(LIBRARY + ANSWERS)
    library_LD, ratings_L = found[:LIBRARY], ratings_of(found[:LIBRARY])
    plain, votes = PlainQuality(library_LD, ratings_L), votes_of(library_LD, ratings_L)
    asked = requests_of([str(number) for number in range(ANSWERS)])
    answers_MD = found[LIBRARY:]

    def ours(count: int) -> object:
        return quality(votes, asked[:count], answers_MD[:count])

    def theirs(count: int) -> object:
        return plain.rewards(answers_MD[:count])

    def theirs_one_by_one(count: int) -> object:
        return [plain.rewards(answers_MD[at : at + 1]) for at in range(count)]

    print(f"\nquality from vectors, {LIBRARY:,} rows of {WIDTH} dimensions, one thread")
    for count, name, contender in (
        (ANSWERS, f"{ANSWERS:,} at once", theirs),
        (64, "64 at once", theirs),
        (64, "one by one", theirs_one_by_one),
    ):
        pairs = [
            (count / seconds_of(ours, count), count / seconds_of(contender, count))
            for _ in range(REPEATS + 1)
        ][1:]  # the first ones warm up
        mine, plainly = [one for one, _ in pairs], [one for _, one in pairs]
        rate(f"scikit-learn, {name}", "answers/s", plainly)
        rate(f"mixup, {count:,} at once", "answers/s", mine)
        ratio(f"mixup : scikit-learn, {name}", mine, plainly)


def written(answer: str) -> str:
    return f"<think>\nBoth say this.\n</think>\n\n<answer>\n{answer}\n</answer>"


@dataclass(frozen=True)
class Answer:
    """A real row's output as the answer to another one's question, and the gold answer to that."""

    text: str
    gold: str
    turns: tuple[Turn, ...]

    def request(self, number: int, *, is_parsed: bool) -> ScoreRequest:
        text, turns = (written(self.text), self.turns) if is_parsed else (self.text, None)
        return request_of(f"{number:032x}", "qa", text, turns, targets=[self.gold], inputs=[])


def real_answers() -> list[Answer]:
    rows = pq.read_table(DATA / "alpaca_libre.parquet").to_pylist()
    rows = [row for row in rows if row["output"].strip() and row["instruction"].strip()]
    found: list[Answer] = []
    for row in rows:
        asked = rows[len(found) // GROUP]
        question, gold, said = (
            " ".join(text.split())
            for text in (asked["instruction"], asked["output"], row["output"])
        )
        answer = f"Q: {question}\nA: {said}"
        with suppress(RecordError):  # some hold labels of their own
            turns = parse_distilled(written(answer), "qa").turns
            found.append(Answer(answer, f"Q: {question}\nA: {gold}", turns))
        if len(found) == ANSWERS:
            return found
    raise AssertionError(f"{len(found)} of {len(rows)} rows make an answer, want {ANSWERS}")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real rows at {DATA}")
def test_end_to_end(tmp_path: Path) -> None:
    """Quality and alignment from texts on, by the bundled encoder."""
    answers = real_answers()
    library_LD = vectors(LIBRARY)
    votes = votes_of(library_LD, ratings_of(library_LD))
    held = tmp_path / "library.npz"
    np.savez(held, vectors=votes.vectors_LD, ratings=votes.ratings_L)
    encoder = SentenceEncoder("bundled:minilm", cpus=THREADS)

    def ours(requests: Sequence[ScoreRequest]) -> list[list[float | None]]:
        """What the reward actors do: every text is encoded once, for all components."""
        said = [text for one in requests for text in (one.pair, one.answer, *one.targets)]
        said = list(dict.fromkeys(said))
        rows = {text: row for row, text in enumerate(said)}
        texts = Texts(rows, encoder.encode(said).vectors_ND, frozenset())
        return [
            [score.value for score in component_scores(name, requests, texts, SETTINGS, votes)]
            for name in ("quality", "alignment")
        ]

    print(f"\nquality and alignment of {ANSWERS:,} real answers, {GROUP} to a gold answer")
    with closing(Contender("rewards")) as plain:
        for name, is_parsed in (("one text for both", False), ("pairs that parse", True)):
            requests = [
                answer.request(number, is_parsed=is_parsed) for number, answer in enumerate(answers)
            ]
            texts = {
                "pairs": [one.pair for one in requests],
                "answers": [one.answer for one in requests],
                "golds": [one.targets[0] for one in requests],
            }
            plain.ask(library=str(held), **{key: some[:16] for key, some in texts.items()})
            mine: list[float] = []
            theirs: list[float] = []
            values: list[list[float | None]] = []
            for _ in range(REPEATS):
                told = plain.ask(library=str(held), **texts)
                theirs.append(ANSWERS / told["seconds"])
                start = time.perf_counter()
                values = ours(requests)
                mine.append(ANSWERS / (time.perf_counter() - start))
                equal = np.mean(np.array(values) == np.array(told["values"]), axis=1)
                assert (equal > 0.99).all(), equal  # encoders round otherwise in other batches
            rate(f"scikit-learn, two encodings, {name}", "answers/s", theirs)
            rate(f"mixup, one encoding, {name}", "answers/s", mine)
            ratio(f"mixup : scikit-learn, {name}", mine, theirs)


def test_rewards_together() -> None:
    """Components that wait for somebody else, all at once and one after the other."""
    waits_s = {"quality": 0.4, "alignment": 0.3, "format": 0.3, "coverage": 0.2}
    requests = [
        request_of(f"{n:032x}", "qa", written("Q: a?\nA: b."), None, targets=["b"], inputs=["a"])
        for n in range(64)
    ]

    def seconds(pools: Sequence[RewardPools]) -> float:
        start = time.perf_counter()
        for one in pools:
            one.score(requests, timeout_s=60.0)
        return time.perf_counter() - start

    with cluster(RayConfig(cpus=2)):
        pools = waiting_pools(waits_s)
        seconds([pools])  # all are there
        apart = one_by_one(pools)
        found = [(seconds([pools]), seconds(apart)) for _ in range(REPEATS)]
    together, serial = [one for one, _ in found], [one for _, one in found]
    longest, total = max(waits_s.values()), sum(waits_s.values())
    print(f"\nfour components that wait {longest:g} s at most and {total:g} s in all")
    rate("together", "s", together)
    rate("one after the other", "s", serial)
    ratio(f"one after the other : together (sum / max {total / longest:.2f})", serial, together)
