"""Train-sft: a base model learns to answer as examples do.

    MIXTURE, a release or files → tokenize → workers of Ray Train, under DeepSpeed → export

Examples are tokenized once, into a table keyed by their content. A training is known by a key of
all that decides its weights; its checkpoints lie under that key. So the same command goes on from
the last checkpoint of a run that was killed, and has nothing to do once the model is there.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from mixup import __version__
from mixup.actors.resources import check_place, cluster
from mixup.errors import ConfigError, MixupError, StalledError, TrainingError
from mixup.lock import acquire, ensure_held
from mixup.models.tokenizing import Encoding, example_tokenizer
from mixup.records import content_key
from mixup.stages.examples import Source, example_files, mixture_split
from mixup.stages.run import RunContext, Stopwatch
from mixup.stages.tokenize import KEPT, TokenSet, stored_set, tokenize
from mixup.stages.vacuum import clean_up
from mixup.training.checkpoints import CheckpointRecord, check_resumable
from mixup.training.export import MODELS, Export, card, description_of, publish_model
from mixup.training.launch import Launch, run_workers
from mixup.training.metrics import check_plugins, read_metrics, read_progress
from mixup.training.models import Base, check_base, find_base
from mixup.training.sft import SftWork, train_worker
from mixup.training_config import SftConfig
from mixup.workspace import Workspace, ensure_workspace

logger = logging.getLogger(__name__)

_VERSION = "sft-v1"
_LINE_EVERY_S = 30.0


@dataclass(frozen=True)
class SftOutcome:
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


@dataclass(frozen=True)
class SftPlan:
    """What is decided before a run starts.

    Attributes:
        config: The job's config.
        base: The base model.
        source: What is learned.
        held_out: What the loss is measured on; None: nothing is.
    """

    config: SftConfig
    base: Base
    source: Source
    held_out: Source | None

    @property
    def encoding(self) -> Encoding:
        """How examples become tokens."""
        examples = self.config.examples
        return Encoding(self.config.model, examples.template, examples.window)

    def key(self, tokens: TokenSet, held_out: TokenSet | None) -> str:
        """The key of a training: of all that decides its weights."""
        measured = held_out.revision if held_out and self.config.export.choose == "best" else None
        decides = self.config.decides()
        return content_key(_VERSION, self.base.revision, tokens.revision, measured, decides)

    def model_key(self, training: str) -> str:
        """The key of the model that is exported from a training."""
        return content_key(training, self.config.export.model_dump(mode="json"))


def train_sft(config: SftConfig) -> SftOutcome:
    """Run the job.

    Raises:
        ConfigError: The config or the input is wrong; nothing has started.
        MixupError: The run failed; its last checkpoint stays, and the next run goes on from there.
    """
    watch = Stopwatch()
    workspace = ensure_workspace(config.workspace, buckets=1)
    plan = make_plan(config)
    if up_to_date(workspace, plan):
        logger.info("nothing to do: model %s is up to date", config.name)
        return _outcome(workspace, config.name, is_new=False, seconds=watch.seconds)
    check_plugins(config.metrics.to)
    check_base(plan.base, template=config.examples.template, window=config.examples.window)
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


def make_plan(config: SftConfig) -> SftPlan:
    """Find the base model and the examples that a config names.

    Raises:
        ConfigError: If one of them is missing.
    """
    source = _source(config, config.examples.paths, config.examples.split, "examples.paths")
    held_out = _held_out_source(config, source) if config.held_out.max_rows else None
    return SftPlan(config, find_base(config.model), source, held_out)


def _source(config: SftConfig, paths: list[str], split: str, key: str) -> Source:
    if not paths:
        return mixture_split(config.workspace, split)
    return example_files(paths, split=split, form=config.examples.form, key=key)


def _held_out_source(config: SftConfig, source: Source) -> Source | None:
    """What the loss is measured on; None where that would be what is learned."""
    paths = config.held_out.paths or config.examples.paths
    found = _source(config, paths, config.held_out.split, "held_out.paths")
    if found.key != source.key:
        return found
    if config.held_out.paths:
        raise ConfigError(
            f"held_out.paths {config.held_out.paths} are the examples that are learned; name "
            "others, or set held_out.max_rows=0"
        )
    logger.info("the examples have no splits, so nothing is held out (held_out.paths names it)")
    return None


def up_to_date(workspace: Workspace, plan: SftPlan) -> bool:
    """Whether the model is there and nothing that decides it has changed, told without Ray."""
    described = description_of(workspace, plan.config.name)
    tokens = stored_set(workspace, [plan.source], plan.encoding)
    held_out = plan.held_out and stored_set(workspace, [plan.held_out], plan.encoding)
    if described is None or tokens is None or (plan.held_out is not None and held_out is None):
        return False
    return described["key"] == plan.model_key(plan.key(tokens, held_out))


def _run(context: RunContext, plan: SftPlan, watch: Stopwatch) -> bool:
    """Tokenize, train and export; whether a new model came of it."""
    config, workspace = plan.config, context.workspace
    tokens = tokenize(context, [plan.source], plan.encoding)
    _check_dropped(tokens, config.max_dropped_share)
    held_out = None
    if plan.held_out is not None:
        held_out = tokenize(context, [plan.held_out], plan.encoding)
    training = plan.key(tokens, held_out)
    key = plan.model_key(training)
    described = description_of(workspace, config.name)
    if described is not None and described["key"] == key:
        return False
    if described is not None and not config.overwrite:
        raise ConfigError(
            f"{MODELS}/{config.name} holds a model that was trained otherwise (key "
            f"{described['key'][:12]}, now {key[:12]}); choose another name, or overwrite=true"
        )
    work = SftWork(
        config=config,
        workspace=workspace,
        run=context.run,
        token=context.token,
        base=plan.base,
        training=f"{config.name}-{training[:12]}",
        tokens=tokens.name,
        held_out=None if held_out is None else held_out.name,
    )
    final = _train(context, work)
    _export(context, work, final, _describe(plan, work, key, tokens, held_out, final))
    record = {"model": config.name, "key": key, "seconds": watch.seconds, "ended": time.time()}
    workspace.write_json(f"runs/{context.run}/summary.json", record)
    return True


def _check_dropped(tokens: TokenSet, limit: float) -> None:
    """Check the share of rows that were left out.

    Raises:
        MixupError: If it is above the limit.
    """
    left, kept = tokens.left_out, tokens.counts.get(KEPT, 0)
    if sum(left.values()) > limit * (kept + sum(left.values())):
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(left.items()))
        raise MixupError(
            f"{sum(left.values())} of {kept + sum(left.values())} examples are left out ({named}), "
            f"more than max_dropped_share={limit}; the table `tokens` has the place of each: mend "
            "the data, raise examples.window if they are too long, or raise the limit"
        )


def _train(context: RunContext, work: SftWork) -> CheckpointRecord:
    """Train to the end, from wherever the last run stopped; the last checkpoint."""
    config, store = work.config, work.store
    last, (batches, _) = store.last(), work.plan()
    if last is not None:
        check_resumable(
            last,
            plan=batches.fingerprint,
            world=config.workers.count,
            stage=config.zero.stage,
        )
        if last.is_final:
            logger.info("train: nothing to do, all %d steps are done", last.steps)
            return last
    context.workspace.write_json(f"runs/{context.run}/training.json", {"folder": store.folder})
    start = last.step if last else 0
    logger.info(
        "train: started at step %d of %d; %d worker(s), ZeRO-%d; %d tokens an epoch",
        *(start, batches.steps, config.workers.count, config.zero.stage, batches.tokens),
    )
    launch = Launch(
        name=work.training,
        storage=context.workspace.path(f"runs/{context.run}/ray")
        if context.workspace.is_local
        else f"{context.workspace.uri}/runs/{context.run}/ray",
        workers=config.workers,
    )
    with _progress(work, start, batches.steps, config.stall_timeout_s) as watch:
        run_workers(train_worker, {"work": work}, launch, watch)
    final = store.last()
    if final is None or not final.is_final:
        raise TrainingError(f"the workers ended without the last checkpoint of {store.folder}")
    logger.info("train: done, %d steps", final.steps)
    return final


@contextmanager
def _progress(
    work: SftWork, start: int, steps: int, stall_timeout_s: float
) -> Iterator[Callable[[], None]]:
    """One line of progress: a bar on a terminal, elsewhere a plain line every half minute.

    What it yields is called again and again, and raises when no step was done for too long.
    """
    bar = tqdm(desc="train", unit=" steps", total=steps, initial=start, leave=False)
    bar.disable = not sys.stderr.isatty()
    seen, moved, shown = start, time.monotonic(), time.monotonic()

    def look() -> None:
        nonlocal seen, moved, shown
        found = read_progress(work.workspace, work.store.folder) or {}
        now, step = time.monotonic(), found.get("step", start)
        if step != seen:
            bar.update(max(step - seen, 0))
            bar.set_postfix({name: found[name] for name in ("loss",) if name in found})
            seen, moved = step, now
        if now - moved > stall_timeout_s:
            raise StalledError(
                f"train: no step was logged for {stall_timeout_s:g} s (stall_timeout_s); the last "
                "checkpoint is kept, and the same command goes on from there"
            )
        if not sys.stderr.isatty() and found and now - shown >= _LINE_EVERY_S:
            values = [f"{name} {found[name]:.4g}" for name in _SHOWN if found.get(name) is not None]
            logger.info("train: step %d of %d; %s", step, steps, ", ".join(values))
            shown = now

    if not sys.stderr.isatty():
        bar.close()
    try:
        yield look
    finally:
        bar.close()


_SHOWN = ("loss", "held_out_loss", "tokens_per_second", "epoch")


def _export(
    context: RunContext, work: SftWork, final: CheckpointRecord, description: dict[str, Any]
) -> None:
    import ray

    config, workspace = work.config, context.workspace
    chosen = final
    if config.export.choose == "best":
        chosen = work.store.best() or final
    logger.info("export: started, from step %d", chosen.step)
    description = {**description, "step": chosen.step, "held_out_loss": chosen.loss}
    export = Export(
        base=work.base,
        template=config.examples.template,
        end_id=example_tokenizer(_encoding(work)).end_id,
        is_adapter=config.lora is not None,
        merge=config.export.merge,
        dtype=config.export.dtype,
        description=description,
        card=card(
            config.name,
            config.model,
            [(name, str(value)) for name, value in description.items() if name != "config"],
            description["config"],
            kind="sft",
        ),
    )
    ensure_held(workspace, context.token)
    task = ray.remote(num_cpus=1)(_export_task)
    files = ray.get(task.remote(work, chosen, export))
    logger.info("export: done, %d files in %s/%s", len(files), MODELS, config.name)


def _encoding(work: SftWork) -> Encoding:
    examples = work.config.examples
    return Encoding(work.config.model, examples.template, examples.window)


def _export_task(work: SftWork, chosen: CheckpointRecord, export: Export) -> list[str]:
    from mixup.training.checkpoints import WEIGHTS

    with work.store.opened(chosen) as folder:
        return publish_model(work.workspace, work.config.name, export, folder / WEIGHTS)


def _describe(
    plan: SftPlan,
    work: SftWork,
    key: str,
    tokens: TokenSet,
    held_out: TokenSet | None,
    final: CheckpointRecord,
) -> dict[str, Any]:
    """What a model was made of: its key, base, data, metrics and config."""
    lines = read_metrics(work.workspace, work.store.folder)
    losses = [row["loss"] for row in lines if row["kind"] == "train"]
    measured = [row["loss"] for row in lines if row["kind"] == "held_out"]
    return {
        "key": key,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mixup": __version__,
        "run": work.run,
        "base": plan.base.name,
        "base_revision": plan.base.revision,
        "data": ", ".join(plan.config.examples.paths) or "the table mixture",
        "data_revision": tokens.revision,
        "examples": tokens.rows,
        "tokens": tokens.tokens,
        "learned_tokens": tokens.learned,
        "left_out": tokens.left_out,
        "held_out_revision": None if held_out is None else held_out.revision,
        "steps": final.steps,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "held_out_losses": measured,
        "config": plan.config.model_dump(mode="json", exclude={"workspace"}),
    }


def _outcome(workspace: Workspace, name: str, *, is_new: bool, seconds: float) -> SftOutcome:
    described = description_of(workspace, name) or {}
    return SftOutcome(f"{workspace.uri}/{MODELS}/{name}", is_new, described, seconds)
