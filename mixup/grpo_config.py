"""The typed config of `mixup train-grpo`; how it is read and shown is as in `mixup.config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mixup.config import Amount, Count, EmbedConfig, Section, Share
from mixup.rater_config import EngineConfig, RatedField
from mixup.refresh_config import CurateConfig, ScoringConfig
from mixup.training_config import (
    AdamConfig,
    CheckpointsConfig,
    MetricsConfig,
    Positive,
    Split,
    TrainingConfig,
    with_preset,
)

Variant = Literal["dapo", "grpo", "dr_grpo", "gspo"]


class PromptsConfig(Section):
    """What is answered, and the gold targets that answers are held against."""

    paths: list[str] = []
    """A published mixture, or files in either of the paper's two schemas: files, folders, globs or
    URLs. Empty takes MIXTURE from the tables of the workspace."""
    split: Split = "rl"
    """The split that is taken, where the source has splits."""
    max_tokens: Count = 2400
    """The longest prompt, in tokens. A longer one is left out and counted, never cut."""
    max_rows: Count | None = None
    """At most so many pairs, drawn by the seed; null: all."""


class HeldOutPairsConfig(Section):
    """What the reward is measured on while training: pairs that are not trained on."""

    paths: list[str] = []
    """As `prompts.paths`; empty takes another split of the prompts' own source, and no held-out
    pairs where the source has no splits."""
    split: Split = "test"
    """The split that is taken, where the source has splits."""
    max_rows: Annotated[int, Field(ge=0)] = 64
    """At most so many pairs, drawn by the seed; 0: none."""
    every_steps: Count = 25
    """Steps between two evaluations; there is one before the first step and at the end too."""
    samples: Count = 1
    """Answers to each of them."""
    temperature: Amount = 0.6
    """Sampling temperature of these answers; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus sampling of these answers."""


class RolloutsConfig(Section):
    """What is drawn at each step, from the whole distribution (no top-p): a correction needs it."""

    prompts: Count = 128
    """Prompts of one step, over all workers."""
    group: Annotated[int, Field(ge=2)] = 4
    """Answers to each prompt, which are compared with one another."""
    minibatches: Count = 8
    """Optimizer updates on the rollouts of one step; the prompts are divided among them."""
    temperature: Positive = 1.0
    """Sampling temperature."""
    max_tokens: Count = 2400
    """Longest answer in tokens."""


class ObjectiveConfig(Section):
    """What is learned from the rollouts."""

    variant: Variant = "dapo"
    """`dapo`: the mean over all tokens of an update, as in the paper; `grpo`: the mean over answers
    of each one's mean; `dr_grpo`: sums by a constant length, and advantages that are not divided by
    a deviation; `gspo`: ratios of whole answers."""
    clip_low: Share = 0.2
    """A token's ratio to the policy that drew it counts as at least 1 - this."""
    clip_high: Amount = 0.3
    """It counts as at most 1 + this."""
    ratio_cap: Annotated[float, Field(gt=1)] | None = 3.0
    """The largest ratio of an answer that is worse than its group (dual clip); null: no cap."""
    beta: Amount = 0.01
    """Weight of the KL divergence (k3) from the base model; 0 needs no reference."""
    scale: Literal["group", "batch", "none"] | None = None
    """What advantages are divided by: the deviation of the group, of the whole step, or nothing;
    null: as the variant has it."""
    floor: Positive = 0.05
    """The least deviation that is divided by: rewards that differ by less are not blown up."""
    least_rewards: Annotated[int, Field(ge=2)] = 2
    """A group with fewer answers that have a reward is left out, and counted."""
    drop_constant: bool = False
    """Leave groups out whose rewards are all equal; else they feel the KL term alone."""
    correction_cap: Positive | None = 2.0
    """The largest weight by which a token is corrected for the difference between the engine that
    drew it and the trainer; null: no correction."""

    @property
    def scaled_by(self) -> Literal["group", "batch", "none"]:
        """What advantages are divided by."""
        return self.scale or ("none" if self.variant == "dr_grpo" else "group")


class RolloutEngines(Section):
    """vLLM engine actors that draw the answers, and what each asks of the cluster."""

    count: Count = 1
    """How many."""
    cpus: Amount = 1.0
    """CPUs of each."""
    gpus: Amount = 1.0
    """GPUs of each; 0 runs vLLM on the CPU in float32."""
    memory_gb: Positive = 2.0
    """Without a GPU: memory of each for model and KV cache."""
    gpu_memory_share: Share = 0.85
    """Share of a GPU's memory that an engine takes."""
    push: Literal["object_store", "nccl"] = "object_store"
    """How weights get to the engines: through Ray's object store, for CPUs and small models; or by
    vLLM's own transfer between GPUs."""
    start_s: Positive = 600.0
    """How long an engine may take to load its model."""
    push_s: Positive = 300.0
    """How long it may take to load a version of the weights, or to say what it holds."""
    generate_s: Positive = 1800.0
    """How long it may take to answer one worker's share of a step."""


class RolloutRewards(ScoringConfig):
    """The rubric that scores answers, and the actors that do: the same code as in `refresh`."""

    timeout_s: Positive = 600.0
    """How long the actors may take to score one worker's share of a step."""


class LibraryConfig(RatedField):
    """The rated examples that vote on quality."""

    workspace: str | None = None
    """A workspace whose `refresh` fitted a reference library, which is taken as it is."""
    paths: list[str] = []
    """A built library, as its folder or as a workspace of `mixup build-reference`, which stands for
    its current one; or rated files in any input format, of which a library is made."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.workspace is not None and self.paths:
            raise ValueError("library: give workspace or paths, not both")
        return self


class GrpoAdam(AdamConfig):
    """AdamW as the paper has it. Steps are those of rollouts; `minibatches` updates are in each."""

    learning_rate: Positive = 1e-6
    """The highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "constant"
    """How the learning rate falls after the warm-up: to 0, or not at all."""
    warmup: Share = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    micro_batch: Count = 4
    """Most answers of one forward pass of a worker."""


class GrpoConfig(TrainingConfig):
    """`mixup train-grpo`: a distiller learns from the rewards of its own answers."""

    preset: Literal["paper", "small"] | None = None
    """Values to start from, which every key given beside it replaces. `paper`: the paper's second
    stage, on GPUs; `small`: LoRA of the model that the small cold start made, on two CPUs."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "grpo"
    """The model goes to the folder `models/NAME` of the workspace."""
    seed: int = 1
    """Decides the order of the prompts, every answer that is drawn, and the first adapters."""
    model: str | None = None
    """The base model, which a cold start has taught the format: a folder, a hub id, or
    `bundled:smollm2`; null takes the model `distiller` of the workspace, which train-sft makes."""
    commit_interval_s: Positive = 5.0
    """Least seconds between two commits of rollouts."""
    stall_timeout_s: Positive = 7200.0
    """The job fails when no step is done for so long."""
    max_dropped_share: Share = 0.2
    """The job fails when a larger share of the prompts is left out."""
    prompts: PromptsConfig = PromptsConfig()
    held_out: HeldOutPairsConfig = HeldOutPairsConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    engines: RolloutEngines = RolloutEngines()
    reward: RolloutRewards = RolloutRewards()
    library: LibraryConfig = LibraryConfig()
    embed: EmbedConfig = EmbedConfig()
    curate: CurateConfig = CurateConfig()
    """How the library votes: `threshold`, `neighbors`, `effective_votes` and what T is made of."""
    optimizer: GrpoAdam = GrpoAdam()
    checkpoints: CheckpointsConfig = CheckpointsConfig(every_steps=25)
    metrics: MetricsConfig = MetricsConfig(every_steps=1)

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        return with_preset(GRPO_PRESETS, given)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        parts = self.rollouts.minibatches * self.workers.count
        if self.rollouts.prompts % parts:
            raise ValueError(
                f"rollouts.prompts {self.rollouts.prompts} cannot be divided evenly among "
                f"{self.rollouts.minibatches} minibatch(es) of {self.workers.count} worker(s); "
                f"give a multiple of {parts}"
            )
        if self.objective.least_rewards > self.rollouts.group:
            raise ValueError(
                f"objective.least_rewards {self.objective.least_rewards} is more than a group has, "
                f"{self.rollouts.group}"
            )
        if self.lora is not None and self.lora.dropout:
            raise ValueError(
                "lora.dropout must be 0: with dropout the trainer is never the policy that drew "
                "the answers"
            )
        if self.engines.push == "nccl" and not (self.engines.gpus and self.workers.gpus):
            raise ValueError("engines.push nccl needs GPUs on both sides; take object_store")
        return self

    @property
    def window(self) -> int:
        """The longest prompt and answer together, in tokens."""
        return self.prompts.max_tokens + self.rollouts.max_tokens

    @property
    def engine(self) -> EngineConfig:
        """The engines as the pool takes them."""
        asked = self.engines
        return EngineConfig(
            temperature=self.rollouts.temperature,
            max_tokens=self.rollouts.max_tokens,
            context_tokens=self.window,
            engines=asked.count,
            engine_cpus=asked.cpus,
            engine_gpus=asked.gpus,
            engine_memory_gb=asked.memory_gb,
            gpu_memory_share=asked.gpu_memory_share,
        )

    def decides(self) -> list[Any]:
        """JSON data of what decides the weights, but for the base model, the pairs and the library.

        As in fine-tuning the number of workers and of engines, the ZeRO stage and the size of a
        forward pass are not among it: with others the same is computed, rounded otherwise.
        """
        named: dict[str, tuple[Section, set[str]]] = {
            "optimizer": (self.optimizer, {"micro_batch"}),
            "prompts": (self.prompts, {"paths", "split"}),
            "rollouts": (self.rollouts, set()),
            "objective": (self.objective, set()),
        }
        found = {
            name: section.model_dump(mode="json", exclude=left)
            for name, (section, left) in named.items()
        }
        lora = None if self.lora is None else self.lora.model_dump(mode="json")
        weights = [self.reward.weights, self.reward.task_weights]
        chosen = self.held_out.model_dump(mode="json", exclude={"paths", "split"})
        measured = chosen if self.export.choose == "best" else None
        return [self.seed, self.is_bf16, found, weights, lora, measured]


GRPO_PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Source: spec 3.3. ZeRO-2 with offload stands for its FSDP with offload.
    "paper": {
        "prompts": {"max_tokens": 2400},
        "rollouts": {
            **{"prompts": 128, "group": 4, "minibatches": 8},
            **{"temperature": 1.0, "max_tokens": 2400},
        },
        "held_out": {"samples": 1, "temperature": 0.6, "top_p": 0.95},
        "objective": {
            **{"variant": "dapo", "clip_low": 0.2, "clip_high": 0.3, "ratio_cap": 3.0},
            **{"beta": 0.01, "scale": "group"},
        },
        "optimizer": {
            **{"learning_rate": 1e-6, "schedule": "constant", "warmup": 0.0, "epochs": 1.0},
            **{"weight_decay": 0.01, "max_grad_norm": 1.0, "micro_batch": 4},
        },
        "zero": {"stage": 2, "offload_optimizer": True},
        "workers": {"count": 2, "gpus": 1, "cpus": 4.0},
        "reward": {"encoder_cpus": 1.0},
        "lora": None,
    },
    "small": {
        "prompts": {"max_tokens": 704},
        "held_out": {"max_rows": 12, "every_steps": 10},
        "rollouts": {"prompts": 4, "group": 4, "minibatches": 1, "max_tokens": 192},
        "optimizer": {"learning_rate": 1e-4, "max_steps": 40, "micro_batch": 2},
        "engines": {"cpus": 0.7, "gpus": 0.0},
        "reward": {"encoder_cpus": 0.1},
        "embed": {"model": "bundled:minilm"},
        "workers": {"count": 1, "cpus": 1.0},
        "lora": {"rank": 8, "alpha": 16.0},
        "checkpoints": {"every_steps": 10},
        "export": {"dtype": "float32"},
    },
}
"""Values to start from, by name."""
