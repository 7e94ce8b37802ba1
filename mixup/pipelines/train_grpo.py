"""Train-grpo: a distiller learns from the rewards of its own answers.

    MIXTURE → prompt set ┐
    base model ──────────┼→ engines, reward actors and workers of Ray Train → rollouts, export
    rated examples ──────┘

Room for engines, reward actors and workers is asked for at once. The workers run the loop; the
engines and the reward actors belong to the driver and outlive a worker that dies. A training is
known by a key of all that decides its weights; its checkpoints lie under that key, so the same
command goes on from the last one.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mixup.actors.booking import Booking
from mixup.actors.resources import check_place, cluster
from mixup.actors.rewards import RewardPools
from mixup.commits import Committer
from mixup.errors import ConfigError, MixupError, TrainingError
from mixup.grpo_config import GrpoConfig
from mixup.lock import acquire
from mixup.pipelines.grpo_export import export
from mixup.pipelines.grpo_plan import GrpoPlan, make_plan, up_to_date
from mixup.pipelines.rollouts_page import write_page
from mixup.pipelines.training_line import TrainingLine
from mixup.stages.compact import compact
from mixup.stages.library_folder import votes_of
from mixup.stages.prompt_set import PromptSet, make_prompts
from mixup.stages.reference import load_reference
from mixup.stages.reference_files import build_from_files
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.vacuum import clean_up
from mixup.training.checkpoints import (
    CheckpointRecord,
    CheckpointStore,
    Ranks,
    check_resumable,
)
from mixup.training.export import MODELS, description_of
from mixup.training.grpo.rollouts import TABLE, RolloutSink, commit_rollouts, last_attempt
from mixup.training.grpo.worker import (
    GrpoWork,
    plan_of,
    push_by_nccl,
    push_by_object_store,
    train_worker,
)
from mixup.training.launch import Launch, run_workers
from mixup.training.metrics import check_plugins
from mixup.training.models import check_base
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)

PUSHES: dict[str, Callable[[Any, Ranks], Any]] = {
    "object_store": push_by_object_store,
    "nccl": push_by_nccl,
}
"""The ways of the weights, by the config's ``engines.push``."""


@dataclass(frozen=True)
class GrpoOutcome:
    """What a run came to.

    Attributes:
        model: The model's folder.
        is_new: Whether this run made it.
        description: What it was made of.
        seconds: The run's wall time.
    """

    model: str
    is_new: bool
    description: Mapping[str, Any]
    seconds: float


def train_grpo(config: GrpoConfig) -> GrpoOutcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started.
        MixupError: The run failed; its last checkpoint stays, and the next run goes on from there.
    """
    watch = Stopwatch()
    workspace = ensure_workspace(config.workspace, buckets=1)
    plan = make_plan(config, workspace)
    if up_to_date(workspace, plan):
        logger.info("nothing to do: model %s is up to date", config.name)
        return _outcome(workspace, config.name, is_new=False, seconds=watch.seconds)
    check_plugins(config.metrics.to)
    key = "prompts.max_tokens + rollouts.max_tokens"
    check_base(plan.base, template="chat", window=config.window, key=key)
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    with acquire(workspace, run) as lease:
        context = RunContext(
            workspace,
            run,
            lease.token,
            commit_interval_s=config.commit_interval_s,
            stall_timeout_s=config.stall_timeout_s,
        )
        workspace.write_json(f"runs/{run}/config.json", config.model_dump(mode="json"))
        logger.info("run %s in %s", run, workspace.uri)
        clean_up(context, lease)
        with cluster(config.ray):
            check_place(workspace, shared=config.workspace_shared)
            is_new = _run(context, plan, watch)
    return _outcome(workspace, config.name, is_new=is_new, seconds=watch.seconds)


def _run(context: RunContext, plan: GrpoPlan, watch: Stopwatch) -> bool:
    """Make the prompts and the library, train and export; whether a new model came of it."""
    config, workspace, limit = plan.config, context.workspace, plan.config.prompts.max_tokens
    prompts = make_prompts(context, plan.source, plan.base.name, limit)
    _check_dropped(prompts, config.max_dropped_share)
    held_out = None
    if plan.held_out is not None:
        held_out = make_prompts(context, plan.held_out, plan.base.name, limit)
    _ensure_library(plan)
    training = plan.key(prompts, held_out)
    key = plan.model_key(training)
    described = description_of(workspace, config.name)
    if described is not None and described["key"] == key:
        return False
    if described is not None and not config.overwrite:
        raise ConfigError(
            f"{MODELS}/{config.name} holds a model that was trained otherwise (key "
            f"{described['key'][:12]}, now {key[:12]}); choose another name, or overwrite=true"
        )
    name = f"{config.name}-{training[:12]}"
    store = CheckpointStore(workspace, name, context.run, context.token)
    final = _train(context, plan, store, prompts, held_out)
    export(context, plan, store, key, prompts, final)
    _show(context, plan, store)
    record = {"model": config.name, "key": key, "seconds": watch.seconds, "ended": time.time()}
    workspace.write_json(f"runs/{context.run}/summary.json", record)
    return True


def _check_dropped(prompts: PromptSet, limit: float) -> None:
    """Check the share of pairs that were left out.

    Raises:
        MixupError: If it is above the limit.
    """
    left = sum(prompts.left_out.values())
    if left > limit * (prompts.rows + left):
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(prompts.left_out.items()))
        raise MixupError(
            f"{left} of {prompts.rows + left} pairs are left out ({named}), more than "
            f"max_dropped_share={limit}; mend the data, raise prompts.max_tokens if they are too "
            "long, or raise the limit"
        )


def _ensure_library(plan: GrpoPlan) -> None:
    """Make the library of the rated files that the config names, where it is not there."""
    import ray

    config = plan.config
    if not plan.needs_library or not plan.rated or plan.library() is not None:
        return
    logger.info("building the reference library from %d file(s)", len(plan.rated))
    task = ray.remote(num_cpus=config.embed.actor_cpus, num_gpus=config.embed.actor_gpus)(
        build_from_files
    )
    ray.get(task.remote(plan.place, plan.rated, plan.rater, config.embed, plan.cells()))


def _train(
    context: RunContext,
    plan: GrpoPlan,
    store: CheckpointStore,
    prompts: PromptSet,
    held_out: PromptSet | None,
) -> CheckpointRecord:
    """Train to the end, from wherever the last run stopped; the last checkpoint."""
    config, workspace = plan.config, context.workspace
    last, steps = store.last(), plan_of(config, prompts.rows, prompts.name)
    if last is not None:
        world, stage = config.workers.count, config.zero.stage
        check_resumable(last, plan=steps.fingerprint, world=world, stage=stage)
        if last.is_final:
            logger.info("train: nothing to do, all %d steps are done", last.steps)
            return last
    workspace.write_json(f"runs/{context.run}/training.json", {"folder": store.folder})
    start = last.step if last else 0
    launch = Launch(store.training, f"{workspace.uri}/runs/{context.run}/ray", config.workers)
    demands = [
        *_engine_pool().demands(config.engine),
        *RewardPools.demands(config.reward),
        launch.demand,
    ]
    memory_gb = config.workers.memory_gb
    with Booking.of(demands, config.workers.wait_s, extra_gb=memory_gb) as booking:
        work = _work(context, plan, store, prompts, held_out, booking)
        logger.info(
            "train: started at step %d of %d; %d engine(s), %d worker(s), ZeRO-%d",
            *(start, steps.steps, config.engines.count, config.workers.count, config.zero.stage),
        )
        booking.give_back(launch.demand.what)  # Ray Train books it again for its workers
        with TrainingLine(
            workspace, store.folder, start, steps.steps, config.stall_timeout_s
        ) as line:
            _with_rollouts(context, work, launch, line)
    final = store.last()
    if final is None or not final.is_final:
        raise TrainingError(f"the workers ended without the last checkpoint of {store.folder}")
    logger.info("train: done, %d steps", final.steps)
    return final


def _show(context: RunContext, plan: GrpoPlan, store: CheckpointStore) -> None:
    """Merge the many small files of rollouts, and write the page to browse them."""
    import ray

    compact(context, TABLE)
    task = ray.remote(num_cpus=1)(write_page)
    named = plan.config.name, plan.base.name
    page = ray.get(task.remote(context.workspace, store.training, *named))
    logger.info("rollouts: %s", page)


def _engine_pool() -> Any:
    from mixup.training.grpo.pool import EnginePool  # loads torch

    return EnginePool


def _work(
    context: RunContext,
    plan: GrpoPlan,
    store: CheckpointStore,
    prompts: PromptSet,
    held_out: PromptSet | None,
    booking: Booking,
) -> GrpoWork:
    """Start the engines and the reward actors; what the workers are given."""
    import ray

    config = plan.config
    rewards = _start_rewards(plan, booking)
    logger.info("engines: started, %d", config.engines.count)
    engines = _start_engines(plan, booking)
    logger.info("engines: ready")
    sink = ray.remote(RolloutSink).options(num_cpus=0)
    return GrpoWork(
        config=config,
        workspace=context.workspace,
        run=context.run,
        token=context.token,
        base=plan.base,
        training=store.training,
        prompts=prompts.name,
        held_out=None if held_out is None else held_out.name,
        engines=engines,
        rewards=rewards,
        sink=sink.remote(last_attempt(context.workspace, store.training)),
        push=PUSHES[config.engines.push],
    )


def _start_engines(plan: GrpoPlan, booking: Booking) -> Any:
    from mixup.training.grpo.pool import Patience

    config, options = plan.config, {}
    if config.engines.push == "nccl":
        from mixup.training.grpo.native import ENGINE_OPTIONS

        options = dict(ENGINE_OPTIONS)
    pool, engine = _engine_pool(), config.engine
    (demand,) = pool.demands(engine)
    asked = config.engines
    return pool.start(
        plan.base.name,
        engine,
        Patience(asked.start_s, asked.push_s, asked.generate_s),
        placement=booking.placement(demand.what),
        options=options,
    )


def _start_rewards(plan: GrpoPlan, booking: Booking) -> RewardPools:
    config, settings, votes = plan.config, plan.rewards(), None
    if settings.library is not None:
        votes = votes_of(load_reference(plan.place, settings.library))
    names = [demand.what for demand in RewardPools.demands(config.reward)]
    placement = {name: booking.placement(name) for name in names}
    return RewardPools.start(config.reward, config.embed, settings, votes, placement)


def _with_rollouts(context: RunContext, work: GrpoWork, launch: Launch, line: TrainingLine) -> None:
    """Run the workers, and commit the rollouts that they write meanwhile."""
    committer: Committer = context.committer(TABLE)
    waited = Stopwatch()

    def look() -> None:
        nonlocal waited
        line.look()
        if waited.seconds >= context.commit_interval_s:
            commit_rollouts(work.sink, committer)
            waited = Stopwatch()

    try:
        run_workers(train_worker, {"work": work}, launch, look)
    finally:
        commit_rollouts(work.sink, committer)


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> GrpoOutcome:
    described = description_of(workspace, name) or {}
    return GrpoOutcome(f"{workspace.uri}/{MODELS}/{name}", is_new, described, seconds)
