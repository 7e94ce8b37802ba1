"""Teach: a model makes items of segments → candidates, one outcome each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from mixup.errors import LedgerError, ModelError
from mixup.ledger import StageCounts
from mixup.mixture.teaching import UNUSABLE, prompts_revision
from mixup.mixture_config import EndpointTeacher, EngineTeacher
from mixup.models.folders import model_revision
from mixup.records import content_key
from mixup.stages.asking import WAITING, Stop, key_of
from mixup.stages.candidates import Teaching, wanted_items
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.retry import clear_retryable
from mixup.stages.run import RunContext, StageState, Stopwatch
from mixup.stages.taught import finish_teaching
from mixup.stages.teach_endpoint import endpoint_items
from mixup.stages.teach_engine import engine_items
from mixup.tables import changed_buckets

logger = logging.getLogger(__name__)

ModelTeacher = EndpointTeacher | EngineTeacher
_ACTORS = {"vllm": "_TeacherEngine", "endpoint": "_TeacherActor"}


def model_teacher(config: ModelTeacher) -> str:
    """The revision of a teacher that is a model: weights, prompts and sampling.

    Of an endpoint's model only the name and address are known: one that changes behind them keeps
    its revision.

    Raises:
        ConfigError: If an engine's model is not there.
    """
    sampling = [config.temperature, config.max_tokens, config.structured]
    if isinstance(config, EndpointTeacher):
        return content_key("teacher", [config.base_url, config.model], prompts_revision(), sampling)
    window = [config.top_p, config.context_tokens]
    model = model_revision(config.model)
    return content_key("teacher", model, prompts_revision(), [*sampling, *window])


def teach_by_model(
    context: RunContext, state: StageState, work: Teaching, config: ModelTeacher
) -> StageCounts:
    """Have the teacher make the items that have no outcome; committed as answers come.

    An item without a usable answer has the reason, and is tried again by later runs up to
    ``cover.MAX_ATTEMPTS`` times where that may help. One that a budget left has no outcome yet.

    Raises:
        ModelError: If the endpoint can answer nothing, because of its address, model or key.
        LedgerError: If an item is in no part.
    """
    watch = Stopwatch()
    since = state.consumed("segments")
    buckets = changed_buckets(context.workspace, work.tables["segments"], since)
    wanted = sum(context.each(count_wanted, work, [(bucket,) for bucket in buckets]))
    clear_retryable(context, work.tables["candidates"], ("teacher", work.teacher))
    stop = Stop()
    manifests = _manifests(context, work, config, buckets if wanted else [], stop)
    totals = commit_stream(
        manifests,
        context.committer("candidates"),
        stage="teach",
        unit="rows",
        total=wanted,
        stall=context.stall(_ACTORS[config.type]),
    )
    if stop.fatal:
        raise ModelError(f"the teacher: {stop.fatal}")
    waiting = wanted - totals["rows"]
    if waiting and stop.reason is None:
        raise LedgerError(
            f"stage teach: {wanted} items were to be made and {totals['rows']} have an outcome, "
            "but nothing stopped the teacher"
        )
    counts = finish_teaching(context, state, wanted, totals, UNUSABLE, watch)
    if waiting:
        logger.warning("teach: %s; %d items are %s for the next run", stop.reason, waiting, WAITING)
    return counts


def count_wanted(work: Teaching, bucket: int) -> int:
    """How many items of one bucket have no final outcome; runs in a worker."""
    return sum(1 for _ in wanted_items(work, bucket))


def _manifests(
    context: RunContext,
    work: Teaching,
    config: ModelTeacher,
    buckets: Sequence[int | None],
    stop: Stop,
) -> Iterator[Manifest]:
    chosen = [bucket for bucket in buckets if bucket is not None]
    if not chosen:
        return iter(())
    if isinstance(config, EngineTeacher):
        return engine_items(work, config, chosen)
    return endpoint_items(work, config, key_of(config), chosen, context.commit_interval_s, stop)
