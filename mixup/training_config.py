"""The typed config of the training jobs; how it is read and shown is as in `mixup.config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mixup.config import Amount, Count, RayConfig, Section, Share

Positive = Annotated[float, Field(gt=0)]
Split = Literal["sft", "rl", "validation", "test"]
_BUNDLED = "bundled:smollm2"


class ExamplesConfig(Section):
    """What is learned."""

    paths: list[str] = []
    """A release, a workspace (its current release), a published mixture, or files in any input
    format: files, folders, globs or URLs. Empty takes MIXTURE from the tables of the workspace."""
    split: Split = "sft"
    """The split that is taken, where the source has splits."""
    template: Literal["chat", "plain"] = "chat"
    """`chat` renders the model's chat template, with the prompt that distillation uses; `plain` is
    the prompt, a space, the answer and the end of text."""
    window: Annotated[int, Field(ge=16)] = 2400
    """The longest sequence, in tokens. A longer example is left out and counted, never cut."""
    packing: bool = False
    """Put several examples into one sequence, each of which sees only itself; else each is a
    sequence, and those of one batch are of about the same length."""
    form: Literal["auto", "mixture", "instruction"] = "auto"
    """How rows of files are read: as MIXTURE's pairs, which teach to distill; as instructions and
    their answers; or as their fields say, where `cot` or `task_type` tell a MIXTURE pair."""
    max_rows: Count | None = None
    """At most so many examples, drawn by the seed; null: all."""


class HeldOutConfig(Section):
    """What the loss is measured on while training, and what is generated from."""

    paths: list[str] = []
    """As `examples.paths`; empty takes another split of the examples' own source, and no held-out
    examples where the source has no splits."""
    split: Split = "test"
    """The split that is taken, where the source has splits."""
    max_rows: Annotated[int, Field(ge=0)] = 256
    """At most so many examples, drawn by the seed; 0: none."""
    every_steps: Count = 200
    """Steps between two evaluations; there is one at the end too."""
    generations: Annotated[int, Field(ge=0)] = 2
    """How many of them are answered by the model, greedily, at each evaluation."""
    max_tokens: Count = 256
    """Longest such answer in tokens."""


class LoraConfig(Section):
    """Train low-rank adapters, which the export merges into the weights."""

    rank: Count = 16
    """The rank of the adapters."""
    alpha: Positive = 32.0
    """The scale of the adapters, divided by the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' inputs that is dropped while training."""
    targets: Annotated[list[str], Field(min_length=1)] = [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ]
    """The names of the layers that get one."""


class AdamConfig(Section):
    """AdamW: its rate, how long it goes on, and what of a step goes through at once."""

    learning_rate: Positive = 2e-5
    """The highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up: to 0, or not at all."""
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    epochs: Positive = 1.0
    """How often each example is learned."""
    max_steps: Count | None = None
    """The training ends after so many steps, if it is not shorter anyway."""
    micro_batch: Count = 1
    """Most sequences of one forward pass of a worker."""
    weight_decay: Amount = 0.01
    """Decay of all trained weights."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    epsilon: Positive = 1e-8
    """Keeps the division by the root of the second average finite."""
    max_grad_norm: Positive = 1.0
    """Longer gradients are shortened to this norm."""


class OptimizerConfig(AdamConfig):
    """AdamW, and how much of the examples one step takes."""

    batch: Count = 16
    """Sequences of one optimizer step, over all workers: the result does not depend on how many
    workers there are."""


class ZeroConfig(Section):
    """DeepSpeed ZeRO: what the workers divide among them."""

    stage: Literal[0, 1, 2, 3] = 2
    """0: nothing; 1: the optimizer's state; 2: gradients too; 3: the weights too."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in the memory of the host (stages 1 to 3, with a GPU)."""
    offload_weights: bool = False
    """Keep the weights in the memory of the host (stage 3, with a GPU)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer needs a stage of 1 or more")
        if self.offload_weights and self.stage < 3:
            raise ValueError("offload_weights needs stage 3")
        return self


class WorkersConfig(Section):
    """The processes that train, and what each of them asks of the cluster."""

    count: Count = 1
    """How many."""
    cpus: Positive = 1.0
    """CPUs of each; whole ones are its threads."""
    gpus: Literal[0, 1] = 0
    """GPUs of each: 1, or 0 to train on the CPU in float32."""
    memory_gb: Amount = 0.0
    """Memory of the host that each books; 0 books none."""
    wait_s: Positive = 300.0
    """How long the job waits for them to be free; with an autoscaler, give it the time that a node
    needs."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often the workers are started again, from the last checkpoint, when one dies."""
    timeout_s: Positive = 1800.0
    """A worker that waits so long for the others has failed."""


class CheckpointsConfig(Section):
    """When the whole state is stored, to go on from. The last one and the best one are kept."""

    every_steps: Count = 200
    """Steps between two checkpoints; there is one at the end too."""


class MetricsConfig(Section):
    """What is written down while training; always to `metrics.jsonl`."""

    every_steps: Count = 10
    """Steps between two lines."""
    to: list[Literal["tensorboard", "mlflow", "wandb"]] = []
    """Where else; each needs its own package on the workers, and takes its settings and secrets
    from its own environment variables."""


class ExportConfig(Section):
    """The model that comes out, a folder of the Hugging Face form."""

    choose: Literal["best", "last"] = "last"
    """The checkpoint of the lowest held-out loss, or the last one."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """The precision of the weights."""
    merge: bool = True
    """Merge LoRA adapters into the weights; else only the adapters are written."""
    adapter: Literal["bfloat16", "float32"] | None = None
    """Write LoRA adapters in this precision beside the merged weights too, into the folder
    `adapter` of the model; null does not."""


class TrainingConfig(Section):
    """What all trainings have."""

    workspace: str
    """A folder or object-store URL; relative to where the command is typed."""
    workspace_shared: bool = False
    """A local workspace lies on a file system that all nodes share."""
    overwrite: bool = False
    """Replace a model of this name that was trained otherwise; else that is refused."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """`auto`: bf16 on a GPU, else float32."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Which attention is computed; FlashAttention needs a GPU and its own package."""
    gradient_checkpointing: bool = False
    """Compute activations twice to keep fewer of them: less memory, about a third more time."""
    lora: LoraConfig | None = None
    """Train low-rank adapters; null trains all weights."""
    zero: ZeroConfig = ZeroConfig()
    workers: WorkersConfig = WorkersConfig()
    export: ExportConfig = ExportConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _has_adapter(self) -> Self:
        if self.export.adapter and (self.lora is None or not self.export.merge):
            raise ValueError("export.adapter needs lora, and export.merge=true")
        return self

    @model_validator(mode="after")
    def _possible_on_cpu(self) -> Self:
        if not self.workers.gpus:
            self._on_cpu()
        return self

    def _on_cpu(self) -> None:
        if self.precision == "bf16":
            raise ValueError("precision bf16 needs workers.gpus=1; on a CPU it is float32")
        if self.attention == "flash_attention_2":
            raise ValueError("attention flash_attention_2 needs workers.gpus=1")
        if self.zero.offload_optimizer or self.zero.offload_weights:
            raise ValueError("zero.offload_* needs workers.gpus=1: on a CPU nothing is elsewhere")

    @property
    def is_bf16(self) -> bool:
        """Whether forward and backward passes are computed in bfloat16."""
        return bool(self.workers.gpus) and self.precision != "float32"


class SftConfig(TrainingConfig):
    """`mixup train-sft`: a base model learns to answer as the examples do."""

    preset: Literal["paper-distiller", "paper-downstream", "small"] | None = None
    """Values to start from, which every key given beside it replaces. `paper-distiller`: the cold
    start of the paper's distiller; `paper-downstream`: its fine-tuning on a release; `small`: LoRA
    of the bundled model on a CPU."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "sft"
    """The model goes to the folder `models/NAME` of the workspace."""
    seed: int = 42
    """Decides the order of the examples, the draw of a part of them, and the first adapters."""
    model: str = "Qwen/Qwen2.5-1.5B-Instruct"
    """The base model: a folder, a hub id, or `bundled:smollm2`."""
    commit_interval_s: Positive = 5.0
    """Least seconds between two commits while examples are tokenized."""
    stall_timeout_s: Positive = 1800.0
    """The job fails when nothing is done for so long."""
    max_dropped_share: Share = 0.2
    """The job fails when a larger share of the examples is left out."""
    examples: ExamplesConfig = ExamplesConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        return with_preset(PRESETS, given)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        passes = -(-self.optimizer.batch // self.optimizer.micro_batch)
        if passes < self.workers.count:
            raise ValueError(
                f"a batch of {self.optimizer.batch} in micro-batches of "
                f"{self.optimizer.micro_batch} is {passes} forward pass(es), fewer than the "
                f"{self.workers.count} workers; raise optimizer.batch or lower workers.count"
            )
        return self

    def decides(self) -> list[Any]:
        """JSON data of what decides the weights, but for the base model and the examples' content.

        The number of workers, the ZeRO stage and the size of a forward pass are not among it: with
        others the same is computed, sums being rounded otherwise.
        """
        optimizer = self.optimizer.model_dump(mode="json", exclude={"micro_batch"})
        examples = self.examples.model_dump(mode="json", exclude={"paths", "split", "form"})
        held_out = self.held_out.model_dump(mode="json", include={"max_rows", "every_steps"})
        lora = None if self.lora is None else self.lora.model_dump(mode="json")
        chosen = held_out if self.export.choose == "best" else None
        return [self.seed, self.is_bf16, examples, optimizer, lora, chosen]


def with_preset(presets: Mapping[str, Mapping[str, Any]], given: Any) -> Any:
    """What is given, over the values of the preset that it names; an unknown one is refused later.

    Args:
        presets: The presets, by name.
        given: The keys of a config, as they were read.
    """
    if not isinstance(given, dict):
        return given
    keys: dict[str, Any] = given
    known = presets.get(str(keys.get("preset")))
    return keys if known is None else _over(known, keys)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of keys as one; where both have a key, the value above is taken."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = value
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = _over(under, value)
    return merged


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Source: spec 3.1, the paper's script; 1 epoch, as its checkpoint's number of steps says.
    "paper-distiller": {
        "name": "distiller",
        "model": "Qwen/Qwen2.5-1.5B-Instruct",
        "examples": {"template": "chat", "window": 2400, "packing": False},
        "optimizer": {
            **{"learning_rate": 2e-5, "schedule": "linear", "warmup": 0.05, "epochs": 1.0},
            **{"weight_decay": 0.01, "batch": 1, "micro_batch": 1},
        },
        "lora": None,
    },
    # Source: spec 4.4, the command of the DS2 authors that the paper uses.
    "paper-downstream": {
        "name": "downstream",
        "model": "meta-llama/Llama-3.1-8B",
        "gradient_checkpointing": True,  # changes no result; without it 80 GB do not hold it
        "examples": {"template": "plain", "window": 2048, "packing": False},
        "optimizer": {
            **{"learning_rate": 1e-4, "schedule": "linear", "warmup": 0.03, "epochs": 5.0},
            **{"weight_decay": 0.0, "batch": 128, "micro_batch": 1},
        },
        "lora": {"rank": 64, "alpha": 16.0, "dropout": 0.1},
    },
    # Measured: 100 steps teach the bundled model the distiller's format on two cores.
    "small": {
        "name": "distiller",
        "model": _BUNDLED,
        "examples": {"template": "chat", "window": 1024, "packing": False},
        "held_out": {"max_rows": 24, "every_steps": 50, "max_tokens": 160},
        "optimizer": {
            **{"learning_rate": 1e-3, "schedule": "linear", "warmup": 0.05, "max_steps": 100},
            **{"weight_decay": 0.0, "batch": 4, "micro_batch": 1},
        },
        "lora": {"rank": 8, "alpha": 16.0},
        "checkpoints": {"every_steps": 25},
        "metrics": {"every_steps": 5},
        "export": {"dtype": "float32"},
    },
}
"""Values to start from, by name."""
