"""A tiny random model, examples for it, and what plain PyTorch makes of them: the reference."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from mixup.config_file import load_config
from mixup.training_config import SftConfig

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "two", "red", "dogs", "ran", "past", "door"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|end|>", "<|im_start|>", "<|im_end|>"]


def write_tiny_model(folder: Path, *, hidden: int = 32, tied: bool = True) -> Path:
    """A Llama of 2 layers with random weights, and a tokenizer of the 256 bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: place for place, text in enumerate([*SPECIAL, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|end|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,  # some models have rows of weights without a token
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    return folder


def write_examples(folder: Path, *, learn: int = 45, held_out: int = 6) -> Path:
    """Short questions and answers of random words."""
    draw = random.Random(3)

    def text(most: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, most)))

    for name, count in (("learn", learn), ("held_out", held_out)):
        rows = [{"instruction": text(6), "output": text(12)} for _ in range(count)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def tiny_config(workspace: Path, model: Path | str, examples: Path, *overrides: str) -> SftConfig:
    """A config of 20 steps; batches do not come out even among two workers."""
    job = workspace.parent / f"{workspace.name}.yaml"
    job.write_text(json.dumps(tiny_job(workspace, model, examples)), encoding="utf-8")
    return load_config(SftConfig, job, overrides)


def tiny_job(workspace: Path, model: Path | str, examples: Path) -> dict[str, Any]:
    return {
        "workspace": str(workspace),
        "name": "tiny",
        "model": str(model),
        "examples": {"paths": [str(examples / "learn.jsonl")], "window": 160},
        "held_out": {"max_rows": 0},
        "optimizer": {
            **{"learning_rate": 0.02, "warmup": 0.1, "epochs": 10.0, "max_steps": 20},
            **{"batch": 10, "micro_batch": 2, "weight_decay": 0.01, "max_grad_norm": 1.0},
        },
        "workers": {"count": 2, "cpus": 1.0, "wait_s": 60},
        "checkpoints": {"every_steps": 1000},
        "metrics": {"every_steps": 1},
        "export": {"dtype": "float32"},
        "max_dropped_share": 0.0,
    }


def reference(
    config: SftConfig, token_set: str | None = None
) -> tuple[list[float], dict[str, Any]]:
    """The loss of each step and the last weights, by plain PyTorch in one process.

    No Trainer, no DeepSpeed, no accumulation: a step is one sum over all rows of its batch, each
    forwarded alone, divided by the learned tokens. So a row sees no padding and no other row.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, get_scheduler, set_seed

    from mixup.models.folders import model_folder
    from mixup.training.models import lora_config
    from mixup.training.plan import BatchPlan, PlanSettings, seeded_order
    from mixup.training.tokens import TokenRows
    from mixup.workspace import Workspace

    optimizer = config.optimizer
    workspace = Workspace(config.workspace)
    rows = TokenRows(workspace, token_set or workspace.list("token_sets")[0])
    settings = PlanSettings(
        window=config.examples.window,
        batch=optimizer.batch,
        epochs=optimizer.epochs,
        max_steps=optimizer.max_steps,
        packing=config.examples.packing,
        seed=config.seed,
    )
    plan = BatchPlan(rows.lengths_N, settings, seeded_order(len(rows), config.seed, 3))
    model: Any = AutoModelForCausalLM.from_pretrained(
        model_folder(config.model), dtype=torch.float32
    )
    if config.lora is not None:
        set_seed(config.seed)
        model = get_peft_model(model, lora_config(config.lora))
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    adam = torch.optim.AdamW(
        trained,
        lr=optimizer.learning_rate,
        betas=optimizer.betas,
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay,
    )
    warmup = math.ceil(optimizer.warmup * plan.steps)
    scheduler = get_scheduler(optimizer.schedule, adam, warmup, plan.steps)
    losses = []
    for step in range(plan.steps):
        found = [rows[int(row)] for row in plan.rows_of(step)]
        learned = sum(int(row.loss_mask.sum()) for row in found)
        total = 0.0
        for row in found:
            ids = torch.tensor([row.input_ids.tolist()])
            mask = torch.tensor(row.loss_mask.tolist())[1:]
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            losses_T = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            loss = losses_T[mask].sum() / learned
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, optimizer.max_grad_norm)
        adam.step()
        scheduler.step()
        adam.zero_grad()
        losses.append(total)
    return losses, {name: weights.detach() for name, weights in model.named_parameters()}
