"""The part of a release's digest that tells of score curation."""

from __future__ import annotations

from collections.abc import Sequence

from mixup.ledger import FATE_DUPLICATE, StageCounts
from mixup.models.encoder import similarity_of
from mixup.refresh_config import RefreshConfig
from mixup.report.curation import (
    Calibration,
    CellsFound,
    CuratedRatings,
    DuplicatePair,
    Duplicates,
    ScoreCuration,
    size_bins,
)
from mixup.stages.fitted_cells import REFIT_AT, FittedCells
from mixup.stages.survey import Survey
from mixup.stages.survey_scores import ScoreSurvey


def curation_of(
    survey: Survey,
    config: RefreshConfig,
    stages: Sequence[StageCounts],
    skipped: Sequence[str],
    fitted: FittedCells | None,
    pairs: Sequence[DuplicatePair],
) -> ScoreCuration:
    """What the report shows of score curation.

    Args:
        survey: Of the whole pool.
        config: The job's config.
        stages: What the stages of the run did.
        skipped: The stages that had nothing to do.
        fitted: The cells in use; None where no row has a vector.
        pairs: The near-duplicates to show.
    """
    found, counts = survey.scores, survey.scores.counts
    done = next((row.extra["cells_done"] for row in stages if row.stage == "curate"), None)
    return ScoreCuration(
        threshold=config.curate.threshold,
        calibration=Calibration(
            rows=tuple(found.calibration.rows_B.tolist()),
            predicted=tuple(found.calibration.predicted_B.tolist()),
            high=tuple(found.calibration.high_B.tolist()),
        ),
        ratings=CuratedRatings(
            rated=counts["rated"],
            counts=tuple(tuple(row) for row in found.curated_CC.tolist()),
            tested=counts["tested"],
            suspicious=counts["suspicious"],
            replaced=counts["replaced"],
        ),
        cells=_cells(found, config.curate.cell_rows, 0 if "curate" in skipped else done, fitted),
        duplicates=Duplicates(
            exact=survey.counts[FATE_DUPLICATE],
            near=counts["near_duplicates"],
            same_source=counts["same_source"],
            other_source=counts["other_source"],
            similarity=similarity_of(config.embed.model, config.embed.similarity).near_duplicate,
            pairs=tuple(pairs),
        ),
    )


def _cells(
    found: ScoreSurvey, cap: int, done: int | None, fitted: FittedCells | None
) -> CellsFound:
    is_told = fitted is not None and (fitted.is_told or fitted.drift > 0)  # splits tell too
    return CellsFound(
        cells=len(found.cells),
        rows=found.counts["placed"],
        most=max(found.cells.values(), default=0),
        cap=cap,
        sizes=size_bins(found.cells.values(), cap),
        visits=found.counts["visits"],
        done=done,
        drift=fitted.drift if fitted is not None and is_told else None,
        refit_at=REFIT_AT,
        new=fitted.new if fitted else 0,
    )
