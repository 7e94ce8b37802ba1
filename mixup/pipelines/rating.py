"""Rating as every job does it: by what came with the data, or by a judge."""

from __future__ import annotations

from collections.abc import Sequence

from mixup.actors.resources import Demand
from mixup.ledger import StageCounts
from mixup.rater_config import ColumnRater, EngineJudge, JudgeRater, ReferenceRater
from mixup.stages.judge import judge_records, judge_revision, judge_state
from mixup.stages.judge_engine import judge_demand
from mixup.stages.rate import BAD_RATING, rate, rate_state, rater_revision
from mixup.stages.run import RunContext, StageState
from mixup.text.judging import UNPARSABLE

AnyRater = ColumnRater | ReferenceRater | JudgeRater


def revision_of(rater: AnyRater) -> str:
    """The revision of a rater.

    Raises:
        ConfigError: If a judge's model is not there.
    """
    return judge_revision(rater) if isinstance(rater, JudgeRater) else rater_revision(rater)


def rating_state(context: RunContext, rater: AnyRater, revision: str) -> StageState:
    """Whether every record has a rating outcome of the rater."""
    if isinstance(rater, JudgeRater):
        return judge_state(context, rater, revision)
    return rate_state(context, rater)


def rate_records(context: RunContext, rater: AnyRater, revision: str) -> StageCounts:
    """Rate the pool's records that have no outcome."""
    if isinstance(rater, JudgeRater):
        return judge_records(context, rater, revision)
    return rate(context, rater)


def rating_demands(rater: AnyRater) -> list[Demand]:
    """What rating asks of the cluster."""
    if isinstance(rater, JudgeRater) and isinstance(rater.engine, EngineJudge):
        return [judge_demand(rater.engine)]
    return []


def rating_defects(rater: AnyRater) -> Sequence[str]:
    """The reasons for no rating that count as dropped."""
    return UNPARSABLE if isinstance(rater, JudgeRater) else (BAD_RATING,)
