"""Judge: a language model rates the pool's records by a rubric → ratings, one outcome each."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from mixup.actors.deaths import CRASHED
from mixup.errors import ConfigError, LedgerError, ModelError
from mixup.ledger import StageCounts
from mixup.models.chat import PROMPT_TOO_LONG
from mixup.models.endpoint import UNANSWERED
from mixup.models.folders import model_revision
from mixup.rater_config import EndpointJudge, EngineJudge, JudgeRater
from mixup.records import content_key
from mixup.stages.asking import USED, WAITING, Stop, key_of
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS
from mixup.stages.judge_endpoint import endpoint_manifests
from mixup.stages.judge_engine import engine_manifests
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.retry import clear_retryable
from mixup.stages.run import OUTSTANDING, RunContext, StageState, Stopwatch, stage_state
from mixup.stages.sources import refuse_credentials
from mixup.stages.unjudged import Census, Unjudged, limits
from mixup.tables import changed_buckets, snapshot
from mixup.text.judging import UNPARSABLE, rubric_revision

logger = logging.getLogger(__name__)


def check_judge(rater: JudgeRater, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a judge that cannot work, before anything starts.

    Raises:
        ConfigError: As ``check_endpoint``.
    """
    if isinstance(rater.engine, EndpointJudge):
        check_endpoint(rater.engine, "rate.engine", environment)


def check_endpoint(
    endpoint: EndpointJudge, key: str, environment: Mapping[str, str] = os.environ
) -> None:
    """Refuse an endpoint that cannot work, before anything starts.

    Args:
        endpoint: The endpoint.
        key: The config's key that holds it.
        environment: Where its key is looked for.

    Raises:
        ConfigError: If its address is none or holds a credential, or the named key is not set.
    """
    refuse_credentials(endpoint.base_url, f"{key}.base_url")
    url = urlsplit(endpoint.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(
            f"{key}.base_url: {endpoint.base_url!r} is no address; expected one such as "
            "https://api.openai.com/v1 or http://127.0.0.1:8000/v1"
        )
    name = endpoint.api_key_env
    secret = environment.get(name, "").strip()
    if "api_key_env" in endpoint.model_fields_set and not secret:
        raise ConfigError(
            f"{key}.api_key_env: the environment variable {name!r} is not set; set it to the "
            "endpoint's key, or leave api_key_env out for a server that needs none"
        )
    if not secret.isascii() or not secret.isprintable():
        raise ConfigError(f"the environment variable {name!r} holds characters that no key has")


def judge_revision(rater: JudgeRater) -> str:
    """What decides a judgment: model, rubric and sampling.

    An engine's model is named by its content. Of an endpoint's only the name and address are known:
    a model that changes behind them keeps its revision, and its ratings mix with the older ones.

    Raises:
        ConfigError: If the engine's model is not there.
    """
    engine = rater.engine
    rubric = [rubric_revision(spread=rater.spread_scores), rater.max_item_tokens]
    sampling = [engine.temperature, engine.max_tokens, engine.structured]
    if isinstance(engine, EndpointJudge):
        return content_key("judge", [engine.base_url, engine.model], rubric, sampling)
    window = [engine.top_p, engine.context_tokens]
    return content_key("judge", model_revision(engine.model), rubric, [*sampling, *window])


def judge_state(context: RunContext, rater: JudgeRater, revision: str) -> StageState:
    """Whether every record that the judge is to rate has an outcome."""
    return stage_state(
        context.workspace,
        "rate",
        "ratings",
        inputs=["occurrences"],
        decides=["judge", revision, rater.max_rated, context.pool_key],
    )


_ACTORS = {"vllm": "_JudgeActor", "endpoint": "_EndpointActor"}


def judge_records(context: RunContext, rater: JudgeRater, revision: str) -> StageCounts:
    """Have the judge rate the pool's records that have no outcome; committed as answers come.

    A record without a readable answer stays unrated, with the reason, and is tried again by later
    runs up to ``cover.MAX_ATTEMPTS`` times. One that a budget left has no outcome yet.

    Raises:
        ModelError: If the endpoint can answer nothing, because of its address, model or key.
        ResourceError: If the cluster cannot hold the engines.
        LedgerError: If a record is in no part.
    """
    watch = Stopwatch()
    workspace = context.workspace
    state = judge_state(context, rater, revision)
    tables = {name: snapshot(workspace, name) for name in ("occurrences", "records", "ratings")}
    # A limit is one on the whole pool, so that all of it has to be counted.
    since = -1 if rater.max_rated is not None else state.consumed("occurrences")
    buckets = changed_buckets(workspace, tables["occurrences"], since)
    work = Unjudged(workspace, tables, context.pool, rater, revision)
    found = _take_census(work, [bucket for bucket in buckets if bucket is not None])
    fresh = limits(found, rater.max_rated)
    if any(one.again for one in found):
        clear_retryable(context, tables["ratings"], ("rater", revision))
    chosen = {one.bucket: fresh[one.bucket] for one in found if one.again or fresh[one.bucket]}
    stop = Stop()
    totals = commit_stream(
        _manifests(context, work, chosen, stop),
        context.committer("ratings"),
        stage="rate",
        unit="rows",
        total=sum(fresh.values()) + sum(one.again for one in found),
        stall=context.stall(_ACTORS[rater.engine.type]),
    )
    if stop.fatal:
        raise ModelError(f"the judge: {stop.fatal}")
    return _finish(context, state, found, fresh, totals, stop, watch)


def _take_census(work: Unjudged, buckets: Sequence[int]) -> list[Census]:
    import ray

    task = ray.remote(num_cpus=TASK_CPUS)(Unjudged.census)
    return ray.get([task.remote(work, bucket) for bucket in buckets])


def _manifests(
    context: RunContext, work: Unjudged, chosen: Mapping[int, int], stop: Stop
) -> Iterator[Manifest]:
    if not chosen:
        return iter(())
    engine = work.rater.engine
    if isinstance(engine, EngineJudge):
        return engine_manifests(work, engine, chosen)
    flush_s = context.commit_interval_s
    return endpoint_manifests(work, engine, key_of(engine), chosen, flush_s, stop)


def _finish(
    context: RunContext,
    state: StageState,
    found: Sequence[Census],
    fresh: Mapping[int, int],
    totals: Counter[str],
    stop: Stop,
    watch: Stopwatch,
) -> StageCounts:
    rows_in = sum(one.again for one in found) + sum(fresh.values())
    waiting = rows_in - totals["rows"]
    if waiting and stop.reason is None:
        raise LedgerError(
            f"stage rate: {rows_in} records were to be judged and {totals['rows']} have an "
            "outcome, but nothing stopped the judge"
        )
    reasons = [
        name for name in (*UNANSWERED, PROMPT_TOO_LONG, CRASHED, *UNPARSABLE) if totals[name]
    ]
    outstanding = waiting + totals[OUTSTANDING]
    counts = StageCounts(
        stage="rate",
        unit="records",
        rows_in=rows_in,
        parts={
            "rated": totals["rated"],
            **{name: totals[name] for name in reasons},
            WAITING: waiting,
        },
        dropped=UNPARSABLE,
        seconds=watch.seconds,
        extra={
            **{name: totals[name] for name in USED if totals[name]},
            "truncated": totals["truncated"],
            OUTSTANDING: outstanding,
            "not_chosen": sum(one.fresh for one in found) - sum(fresh.values()),
        },
    ).check()
    if waiting:
        logger.warning("rate: %s; %d records wait for the next run", stop.reason, waiting)
    record = {**counts.parts, **counts.extra}
    compact(context, "ratings")
    context.committer("ratings").complete("ratings", state.completion(context.run, record))
    return counts.log()
