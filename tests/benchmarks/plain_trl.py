"""Plain TRL in one process: no Ray, no DeepSpeed, rows from a list. Prints the seconds of steps."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Seconds(TrainerCallback):
    """Takes the time at the end of each step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.at = [time.perf_counter()]

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.at.append(time.perf_counter())


def adapters(lora: dict[str, Any] | None) -> Any:
    """PEFT's config of adapters; None where all weights are trained."""
    from peft import LoraConfig

    return lora and LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )


def main(given: dict[str, Any]) -> None:
    torch.set_num_threads(given["threads"])
    seconds = Seconds()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32),
        args=SFTConfig(
            output_dir=given["scratch"],
            per_device_train_batch_size=given["micro"],
            gradient_accumulation_steps=given["batch"] // given["micro"],
            max_steps=given["steps"],
            learning_rate=given["learning_rate"],
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(given["rows"]),
        processing_class=AutoTokenizer.from_pretrained(given["model"]),
        peft_config=adapters(given["lora"]),
        callbacks=[seconds],
    )
    trainer.train()
    print(json.dumps([b - a for a, b in zip(seconds.at, seconds.at[1:], strict=False)]))


if __name__ == "__main__":
    main(json.load(sys.stdin))
