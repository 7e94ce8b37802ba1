"""Plain TRL's GRPO in one process: transformers' generate, rewards one by one. Prints its seconds.

No Ray, no DeepSpeed, no engine. The rewards are the components of mixup, in the trainer's process.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from plain_trl import Seconds, adapters
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from mixup.actors.components import component_scores
from mixup.actors.requests import Texts, texts_of
from mixup.actors.reward_settings import RewardSettings
from mixup.actors.votes import Votes
from mixup.models.encoder import SentenceEncoder
from mixup.rewards.rubric import COMPONENTS, Rubric, combine
from mixup.training.grpo.prompts import PromptRow
from mixup.training.grpo.scoring import _request


class SerialRewards:
    """All components in this process, one after the other."""

    __name__ = "rewards"

    def __init__(
        self, prompts: Sequence[PromptRow], settings: RewardSettings, votes: Votes
    ) -> None:
        self._prompts = {prompt.pair: prompt for prompt in prompts}
        self._settings, self._votes = settings, votes
        self._encoder = SentenceEncoder("bundled:minilm")

    def __call__(
        self, *, completions: Any, pair: Sequence[str], **unused: Any
    ) -> list[float | None]:
        answers = [one[0]["content"] for one in completions]
        prompts = [self._prompts[name] for name in pair]
        requests = [_request(*found) for found in zip(prompts, answers, strict=True)]
        said = list(dict.fromkeys(text for one in requests for text in texts_of(one)))
        rows = {text: row for row, text in enumerate(said)}
        texts = Texts(rows, self._encoder.encode(said).vectors_ND, frozenset())
        scores = {
            name: component_scores(name, requests, texts, self._settings, self._votes)
            for name in COMPONENTS
        }
        weights = Rubric().for_task("qa")
        return [
            combine({name: scores[name][at].value for name in COMPONENTS}, weights).value
            for at in range(len(answers))
        ]


class TimedTrainer(GRPOTrainer):
    """Says how long the phases of its steps took."""

    spent: dict[str, float]

    def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
        return self._timed("generate", super()._generate_single_turn, *given, **named)

    def _calculate_rewards(self, *given: Any, **named: Any) -> Any:
        return self._timed("reward", super()._calculate_rewards, *given, **named)

    def _get_per_token_logps_and_entropies(self, *given: Any, **named: Any) -> Any:
        phase = "unused" if torch.is_grad_enabled() else "others"
        found = super()._get_per_token_logps_and_entropies
        return self._timed(phase, found, *given, **named)

    def _timed(self, phase: str, work: Callable[..., Any], *given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = work(*given, **named)
        self.spent[phase] = self.spent.get(phase, 0.0) + time.perf_counter() - start
        return result


class Phases(Seconds):
    """Keeps the phases of each step, and how long its answers were."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, float]] = []
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        super().on_step_end(args, state, control, **named)
        spent, step = self.trainer.spent, self.at[-1] - self.at[-2]
        known = {name: spent.get(name, 0.0) for name in ("generate", "reward", "others")}
        length = self.trainer._metrics["train"]["completions/mean_length"][-1]
        train = step - sum(known.values())
        self.found.append({**known, "train": train, "step": step, "mean_length": length})
        spent.clear()


def main(given: dict[str, Any]) -> None:
    torch.set_num_threads(given["threads"])
    prompts, settings, votes = pickle.loads(Path(given["rewards"]).read_bytes())
    phases, group = Phases(), given["group"]
    answers = len(given["asked"][0]) * group
    by_pair = {prompt.pair: prompt for prompt in prompts}
    asked = [by_pair[pair] for step in given["asked"] for pair in step]
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32),
        reward_funcs=[SerialRewards(prompts, settings, votes)],
        args=GRPOConfig(
            output_dir=given["scratch"],
            per_device_train_batch_size=given["micro"],
            gradient_accumulation_steps=answers // given["micro"],
            num_generations=group,
            max_steps=len(given["asked"]),
            max_completion_length=given["tokens"],
            generation_kwargs={"min_new_tokens": given["tokens"]},
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=0.01,
            epsilon=0.2,
            epsilon_high=0.3,
            delta=3.0,
            loss_type="dapo",
            scale_rewards="group",
            learning_rate=given["learning_rate"],
            lr_scheduler_type="constant",
            shuffle_dataset=False,
            remove_unused_columns=False,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            logging_steps=1000,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": prompt.messages, "pair": prompt.pair} for prompt in asked]
        ),
        processing_class=AutoTokenizer.from_pretrained(given["model"]),
        peft_config=adapters(given["lora"]),
        callbacks=[phases],
    )
    trainer.spent, phases.trainer = {}, trainer
    trainer.train()
    print(json.dumps(phases.found))


if __name__ == "__main__":
    main(json.load(sys.stdin))
