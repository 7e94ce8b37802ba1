"""What the ratings of a pool tell of its rater, counted cell by cell."""

import json
from dataclasses import dataclass

import made_pool
import numpy as np
import pytest
from made_pool import Row, add, make_workspace, settings

from mixup.refresh_config import CurateConfig
from mixup.stages.rating_counts import RatingCounts, count_rows
from mixup.stages.reference import (
    current_fit,
    current_reference,
    forget_reference,
    is_reference_current,
)

TOPICS, ROWS = 12, 40
ERRORS = 0.25


@dataclass(frozen=True)
class Scattered(Row):
    """A row at a place of its own around its topic, so that neighbors are not the same for all."""

    @property
    def vector(self) -> np.ndarray:
        draw = np.random.default_rng(int(self.uid[:8], 16))
        vector = 0.5 * draw.normal(size=64) / 8
        vector[self.topic] += 1.0
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def noisy_pool(seed: int = 0) -> list[Row]:
    """Topics of one true class each, 1 or 4, of whose ratings a quarter is the other one."""
    draw = np.random.default_rng(seed)
    return [
        Scattered(f"{topic}-{n}", topic, n, overall=_rating(draw.random() < ERRORS, topic))
        for topic in range(TOPICS)
        for n in range(ROWS)
    ]


def _rating(is_wrong: bool, topic: int) -> float:
    return (5.0, 8.0)[(topic % 2) ^ is_wrong]


def rows_of(pool: list[Row]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    vectors = np.array([row.vector for row in pool])
    ratings = np.array([{5.0: 1, 8.0: 4, None: -1}[row.overall] for row in pool])
    return vectors, ratings, [row.uid for row in pool]


def counted(pool: list[Row], home: int | None = None):
    vectors, ratings, uids = rows_of(pool)
    home = len(pool) if home is None else home
    return count_rows(vectors, ratings, np.arange(len(pool)), uids, home, settings())


def test_counts_of_parts_add_up_to_those_of_the_whole():
    pool = noisy_pool()
    parts = []
    for topic in range(TOPICS):  # neighbors are of the own topic, so each is a cell of its own
        parts.append(counted(pool[topic * ROWS : (topic + 1) * ROWS]).counts)
    whole, summed = counted(pool).counts, RatingCounts.sum(parts)
    assert np.array_equal(whole.pairs, summed.pairs)
    assert np.array_equal(whole.ratings_C, summed.ratings_C)
    assert np.array_equal(whole.triples_BCCC, summed.triples_BCCC)
    assert whole.triples_BCCC[0].sum() == len(pool)


def test_near_duplicates_count_once_and_visitors_not_at_all():
    pool = noisy_pool()
    alone, doubled = counted(pool), counted([*pool, *pool])
    assert np.array_equal(doubled.voters, alone.voters)
    assert np.array_equal(doubled.counts.triples_BCCC, alone.counts.triples_BCCC)
    visited = counted(pool, home=ROWS).counts
    assert visited.ratings_C.sum() == visited.triples_BCCC[0].sum() == ROWS


@pytest.mark.parametrize("cell_rows", [4000, 60])
def test_the_errors_of_the_rater_are_found_and_kept_with_the_library(tmp_path, cell_rows):
    workspace = make_workspace(tmp_path / "w", buckets=2)
    add(workspace, noisy_pool())
    made = settings(curate=CurateConfig(transition="consensus", cell_rows=cell_rows))
    made_pool.curate(workspace, made=made)
    reference = current_reference(workspace, made.scoring())
    assert reference is not None
    noise = reference.fit.noise
    assert (noise.source, noise.classes) == ("shrunk", (1, 4))
    assert "at least 5000" in noise.detail
    assert np.allclose(np.diag(noise.matrix), 1 - ERRORS, atol=0.12)
    assert reference.transition.matrix_CC.tolist() == [list(row) for row in noise.matrix]
    json.dumps(noise.low, allow_nan=False)


def test_by_default_votes_are_read_with_what_goes_together(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, noisy_pool())
    made_pool.curate(workspace, made=settings(curate=CurateConfig()))
    reference = current_reference(workspace, settings(curate=CurateConfig()).scoring())
    assert reference is not None
    # Two noisy ratings agree less often than either does with the truth.
    agree = (1 - ERRORS) ** 2 + ERRORS**2
    assert np.allclose(np.diag(reference.transition.matrix_CC), agree, atol=0.1)


def test_too_few_ratings_say_nothing_of_the_rater(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    add(workspace, noisy_pool()[: 2 * ROWS])
    made = settings(curate=CurateConfig(transition="consensus"))
    made_pool.curate(workspace, made=made)
    reference = current_reference(workspace, made.scoring())
    assert reference is not None
    noise = reference.fit.noise
    assert (noise.source, noise.matrix) == ("none", ())
    assert len(reference.transition.classes) == 2  # and votes are read as by default


def test_a_library_is_current_until_the_rated_rows_or_what_decides_it_have_changed(tmp_path):
    workspace, decides = make_workspace(tmp_path / "w"), settings().scoring()
    rated = len(noisy_pool())

    def is_current(count: int, what: object = decides) -> bool:
        return is_reference_current(workspace, what, rated=count, refit_at=0.25)

    assert not is_current(rated)
    add(workspace, noisy_pool())
    made_pool.curate(workspace, made=settings())
    edge = rated // 4
    assert [is_current(rated + more) for more in (0, edge, -edge)] == [True] * 3
    assert not is_current(rated + edge + 1)
    assert not is_current(rated - edge - 1)
    assert not is_current(rated, settings(encoder="other").scoring())
    assert is_reference_current(workspace, decides)
    forget_reference(workspace)
    assert not is_current(rated)


def test_without_a_library_nothing_is_fitted(tmp_path):
    assert current_fit(make_workspace(tmp_path / "w"), settings().scoring()) is None
