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
from collections.abc import Callable
from typing import Any

from mixup.actors.booking import Booking
from mixup.actors.rewards import RewardPools
from mixup.commits import Committer
from mixup.grpo_config import GrpoConfig
from mixup.models.tokenizing import Encoding
from mixup.pipelines.grpo_plan import GrpoPlan, make_plan, up_to_date
from mixup.pipelines.model_export import Trained, export
from mixup.pipelines.named_library import ensure_library
from mixup.pipelines.progress import cluster_of, started_run
from mixup.pipelines.rollouts_page import write_page
from mixup.pipelines.training_line import TrainingLine
from mixup.pipelines.training_run import (
    TrainingOutcome,
    check_dropped,
    final_checkpoint,
    is_made,
    last_checkpoint,
    note_model,
    outcome,
)
from mixup.stages.compact import compact
from mixup.stages.library_folder import votes_of
from mixup.stages.prompt_set import PromptSet, make_prompts
from mixup.stages.reference import load_reference
from mixup.stages.run import RunContext, Stopwatch
from mixup.training.checkpoints import (
    CheckpointRecord,
    CheckpointStore,
    Ranks,
)
from mixup.training.grpo.rollouts import TABLE, RolloutSink, commit_rollouts, last_attempt
from mixup.training.grpo.worker import (
    GrpoWork,
    plan_of,
    push_by_nccl,
    push_by_object_store,
    train_worker,
)
from mixup.training.launch import Launch, run_workers
from mixup.training.metrics import check_plugins, read_metrics
from mixup.training.models import check_base
from mixup.workspace import ensure_workspace

logger = logging.getLogger(__name__)

PUSHES: dict[str, Callable[[Any, Ranks], Any]] = {
    "object_store": push_by_object_store,
    "nccl": push_by_nccl,
}
"""The ways of the weights, by the config's ``engines.push``."""


def train_grpo(config: GrpoConfig) -> TrainingOutcome:
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
        return outcome(workspace, config.name, watch, is_new=False)
    check_plugins(config.metrics.to, workspace)
    key = "prompts.max_tokens + rollouts.max_tokens"
    check_base(plan.base, template="chat", window=config.window, key=key)
    with started_run(workspace, config) as context, cluster_of(context, config):
        is_new = _run(context, plan, watch)
    return outcome(workspace, config.name, watch, is_new=is_new)


def _run(context: RunContext, plan: GrpoPlan, watch: Stopwatch) -> bool:
    """Make the prompts and the library, train and export; whether a new model came of it."""
    config, workspace, limit = plan.config, context.workspace, plan.config.prompts.max_tokens
    prompts = make_prompts(context, plan.source, plan.base.name, limit)
    check_dropped(
        "pairs",
        prompts.left_out,
        prompts.rows,
        config.max_dropped_share,
        remedy="mend the data, raise prompts.max_tokens if they are too long",
    )
    held_out = None
    if plan.held_out is not None:
        held_out = make_prompts(context, plan.held_out, plan.base.name, limit)
    if plan.needs_library:
        ensure_library(plan.place, plan.named, config.library, config.embed, plan.cells())
    training = plan.key(prompts, held_out)
    key = plan.model_key(training)
    if is_made(workspace, config.name, key, overwrite=config.overwrite):
        return False
    name = f"{config.name}-{training[:12]}"
    store = CheckpointStore(workspace, name, context.run, context.token)
    final = _train(context, plan, store, prompts, held_out)
    encoding = Encoding(plan.base.name, "chat", config.window)
    trained = Trained(config, config.name, key, "grpo", plan.base, encoding, store, final)
    export(context, trained, lambda _: _described(plan, store, prompts))
    _show(context, plan, store)
    note_model(context, config.name, key, watch)
    return True


def _described(plan: GrpoPlan, store: CheckpointStore, prompts: PromptSet) -> dict[str, Any]:
    """What is said of the model's prompts and rewards."""
    lines = read_metrics(store.workspace, store.folder)
    rewards = [row.get("reward") for row in lines if row["kind"] == "train"]
    tested = [row for row in lines if row["kind"] == "held_out"]
    return {
        "data": ", ".join(plan.config.prompts.paths) or "the table mixture",
        "prompt_set": prompts.name,
        "prompts": prompts.rows,
        "left_out": prompts.left_out,
        "library": plan.library(),
        "first_reward": rewards[0] if rewards else None,
        "last_reward": rewards[-1] if rewards else None,
        "held_out_rewards": [[row["step"], row["reward"]] for row in tested],
    }


def _train(
    context: RunContext,
    plan: GrpoPlan,
    store: CheckpointStore,
    prompts: PromptSet,
    held_out: PromptSet | None,
) -> CheckpointRecord:
    """Train to the end, from wherever the last run stopped; the last checkpoint."""
    config, workspace = plan.config, context.workspace
    steps = plan_of(config, prompts.rows, prompts.name)
    last = last_checkpoint(store, config, steps.fingerprint)
    if last is not None and last.is_final:
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
    return final_checkpoint(store)


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
        """Show how far the training is, and commit from time to time."""
        nonlocal waited
        line.look()
        if waited.seconds >= context.commit_interval_s:
            commit_rollouts(work.sink, committer)
            waited = Stopwatch()

    try:
        run_workers(train_worker, {"work": work}, launch, look)
    finally:
        commit_rollouts(work.sink, committer)
