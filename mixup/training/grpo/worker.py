"""GRPO in a worker: from the place in the workspace where the last one stopped.

As in fine-tuning the worker takes the last whole checkpoint, whoever wrote it, and trains to the
end. The engines and the reward actors are the driver's: they outlive a worker that dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixup.actors.rewards import RewardPools
from mixup.rewards.rubric import Rubric
from mixup.training.checkpoints import CheckpointStore, Ranks, check_resumable
from mixup.training.deepspeed import (
    set_up_worker,
)
from mixup.training.grpo.arguments import learning_of, trl_arguments
from mixup.training.grpo.prompts import PromptRows, RolloutPlan
from mixup.training.metrics import MetricsLog
from mixup.training.models import Base, load_model, load_tokenizer, lora_config
from mixup.training.plan import seeded_order
from mixup.training.worker import prepare, run_rank, scratch_folder, train_from
from mixup.workspace import Workspace

if TYPE_CHECKING:
    from mixup.grpo_config import GrpoConfig
    from mixup.training.grpo.held_out import HeldOutPairs
    from mixup.training.grpo.pool import EnginePool
    from mixup.training.grpo.rolling import Rolling
    from mixup.training.grpo.trainer import RolloutTrainer
    from mixup.training.grpo.weights import WeightPush

_DRAW = 13  # apart from what a plan draws
_GATE_TOKENS, _GATE_SEQUENCES = 256, 2


@dataclass(frozen=True)
class GrpoWork:
    """What a worker is given.

    Attributes:
        config: The job's config.
        workspace: Where everything is.
        run: The run.
        token: Its fencing token.
        base: The base model.
        training: The name of the training's folder: a key of all that decides the weights.
        prompts: The prompt set to learn from.
        held_out: The prompt set to measure the reward on; None: nothing is measured.
        engines: The engines.
        rewards: The reward actors.
        sink: Where the driver hears of rollouts.
        push: Makes the way of the weights, on every rank, from the engines and the ranks.
    """

    config: GrpoConfig
    workspace: Workspace
    run: str
    token: int
    base: Base
    training: str
    prompts: str
    held_out: str | None
    engines: EnginePool
    rewards: RewardPools
    sink: Any
    push: Callable[[EnginePool, Ranks], WeightPush]

    @property
    def store(self) -> CheckpointStore:
        """The training's checkpoints."""
        return CheckpointStore(self.workspace, self.training, self.run, self.token)


def plan_of(config: GrpoConfig, rows: int, prompts: str) -> RolloutPlan:
    """Which prompts are asked at which step.

    Raises:
        ConfigError: If there are too few.
    """
    return RolloutPlan(
        rows=rows,
        prompts=config.rollouts.prompts,
        minibatches=config.rollouts.minibatches,
        seed=config.seed,
        set=prompts,
        epochs=config.optimizer.epochs,
        max_steps=config.optimizer.max_steps,
        max_rows=config.prompts.max_rows,
    )


def push_by_object_store(pool: EnginePool, ranks: Ranks) -> WeightPush:
    """The way through Ray's object store."""
    from mixup.training.grpo.pool import ObjectStorePush

    return ObjectStorePush(pool, is_sender=ranks.rank == 0)


def push_by_nccl(pool: EnginePool, ranks: Ranks) -> WeightPush:
    """The way by vLLM's own transfer between GPUs; rank 0's address is told to all."""
    import socket

    import ray
    import torch.distributed as dist

    from mixup.training.grpo.native import NativePush

    with socket.socket() as probe:
        probe.bind(("", 0))
        place = [ray.util.get_node_ip_address(), probe.getsockname()[1]]
    dist.broadcast_object_list(place, src=0)
    return NativePush(pool, address=place[0], port=place[1], rank=ranks.rank)


def train_worker(given: dict[str, Any]) -> None:
    """Train in one worker of Ray Train; ``given["work"]`` is a `GrpoWork`.

    Raises:
        TrainingError: If the training cannot go on; says what to change.
    """
    work: GrpoWork = given["work"]
    run_rank(
        lambda ranks, report: train(work, ranks, report=report),
        work.config,
        last_resort="prompts.max_tokens or rollouts.max_tokens lower (another training)",
    )


def train(work: GrpoWork, ranks: Ranks, *, report: Any) -> None:
    """Train from the last checkpoint to the end, as one of some processes."""
    set_up = set_up_worker(work.config.workers)
    config, store = work.config, work.store
    last = ranks.agree(store.last())
    rows = PromptRows(work.workspace, work.prompts)
    plan = plan_of(config, len(rows), work.prompts)
    if last is not None:
        check_resumable(last, plan=plan.fingerprint, world=ranks.world, stage=config.zero.stage)
        if last.is_final:
            return
    with scratch_folder(work.workspace, work.run) as scratch:
        # DeepSpeed's config is in it: under ZeRO-3 it must be there before the weights are.
        arguments = trl_arguments(
            config, plan, scratch, set_up, is_measured=work.held_out is not None
        )
        log = None
        if ranks.rank == 0:
            log = MetricsLog(work.workspace, store.folder, after=last.step if last else 0)
        rolling = _rolling(work, plan, rows, ranks, log, report)
        trainer = _trainer(work, rolling, arguments)
        train_from(trainer, store, last, ranks)
        if log is not None:
            log.flush()


def _rolling(
    work: GrpoWork,
    plan: RolloutPlan,
    rows: PromptRows,
    ranks: Ranks,
    log: MetricsLog | None,
    report: Any,
) -> Rolling:
    from mixup.training.grpo.engines import Sampling
    from mixup.training.grpo.gate import Gate
    from mixup.training.grpo.generation import EngineGeneration
    from mixup.training.grpo.record import RolloutRecord
    from mixup.training.grpo.rolling import Rolling
    from mixup.training.grpo.scoring import AnswerRewards

    config = work.config
    gate = Gate(work.engines, _gate_sequences(work, rows), is_sender=ranks.rank == 0)
    sampling = Sampling(config.rollouts.temperature, 1.0, config.rollouts.max_tokens)
    rubric = Rubric(config.reward.weights, config.reward.task_weights)
    timeout_s = config.workers.timeout_s
    return Rolling(
        plan=plan,
        rows=rows,
        learning=learning_of(config),
        held_out=_held_out(work),
        generation=EngineGeneration(
            work.engines, work.push(work.engines, ranks), gate, sampling, ranks
        ),
        rewards=AnswerRewards(work.rewards, rubric, config.reward.timeout_s),
        record=RolloutRecord(
            work.workspace, work.training, _attempt(work, ranks), work.sink, timeout_s
        ),
        store=work.store,
        log=log,
        ranks=ranks,
        stage=config.zero.stage,
        report=report,
        choose_best=config.export.choose == "best",
    )


def _attempt(work: GrpoWork, ranks: Ranks) -> int:
    """The number of this attempt, which rank 0 asks for and tells the others."""
    import ray
    import torch.distributed as dist

    found: list[Any] = [ray.get(work.sink.begin.remote()) if ranks.rank == 0 else 0]
    if dist.is_initialized():
        dist.broadcast_object_list(found, src=0)
    return found[0]


def _gate_sequences(work: GrpoWork, rows: PromptRows) -> list[list[int]]:
    """What the gate has both sides score: the first pairs, prompt and gold answer, cut short."""
    from mixup.training.grpo.held_out import rendered

    tokenizer: Any = load_tokenizer(work.base, template="chat")
    most = min(_GATE_TOKENS, work.config.window - 1)
    found = []
    for row in range(min(_GATE_SEQUENCES, len(rows))):
        target = tokenizer(rows[row].target, add_special_tokens=False)["input_ids"][: most // 2]
        found.append([*rendered(tokenizer, rows[row])[len(target) - most :], *target])
    return found


def _held_out(work: GrpoWork) -> HeldOutPairs | None:
    from mixup.training.grpo.engines import Sampling
    from mixup.training.grpo.held_out import HeldOutPairs

    config = work.config.held_out
    if work.held_out is None:
        return None
    rows = PromptRows(work.workspace, work.held_out)
    chosen = seeded_order(len(rows), work.config.seed, _DRAW)[: config.max_rows]
    sampling = Sampling(config.temperature, config.top_p, work.config.rollouts.max_tokens)
    return HeldOutPairs(rows, chosen.tolist(), config.samples, sampling, work.config.seed)


def _trainer(work: GrpoWork, rolling: Rolling, arguments: Any) -> RolloutTrainer:
    from mixup.training.grpo.trainer import RolloutTrainer

    config = work.config
    trainer = RolloutTrainer(
        rolling,
        model=load_model(work.base, bf16=config.is_bf16, attention=config.attention),
        args=arguments,
        processing_class=load_tokenizer(work.base, template="chat"),
        peft_config=None if config.lora is None else lora_config(config.lora),
    )
    each = config.rollouts.prompts * config.rollouts.group // config.rollouts.minibatches
    prepare(
        trainer,
        config,
        work.base,
        steps=rolling.plan.steps,
        is_measured=rolling.held_out is not None,
        passes=-(-each // rolling.ranks.world // config.optimizer.micro_batch),
    )
    return trainer
