from pathlib import Path

import pytest
import yaml

from mixup.config_file import describe, load_config
from mixup.errors import ConfigError
from mixup.grpo_config import GRPO_PRESETS, GrpoConfig

JOB = Path(__file__).parents[2] / "jobs" / "grpo.yaml"


def loaded(*overrides: str) -> GrpoConfig:
    return load_config(GrpoConfig, JOB, overrides)


def test_the_paper_preset_has_the_papers_values():
    paper = loaded("preset=paper")
    drawn, asked, adam = paper.rollouts, paper.objective, paper.optimizer
    assert (drawn.prompts, drawn.group, drawn.minibatches) == (128, 4, 8)
    assert drawn.prompts * drawn.group // drawn.minibatches == 64  # answers of one update
    assert (drawn.temperature, drawn.max_tokens, paper.prompts.max_tokens) == (1.0, 2400, 2400)
    assert (asked.clip_low, asked.clip_high, asked.ratio_cap, asked.beta) == (0.2, 0.3, 3.0, 0.01)
    assert (asked.variant, asked.scaled_by) == ("dapo", "group")
    assert (adam.learning_rate, adam.schedule, adam.warmup) == (1e-6, "constant", 0.0)
    assert (adam.weight_decay, adam.betas, adam.max_grad_norm) == (0.01, (0.9, 0.999), 1.0)
    assert (paper.held_out.temperature, paper.held_out.top_p) == (0.6, 0.95)
    assert paper.lora is None
    assert paper.reward.weights == {
        **{"quality": 0.5, "alignment": 0.4, "format": 0.1, "coverage": 0.0},
    }


def test_the_small_preset_fits_two_cpus():
    small = loaded("preset=small")
    actors = small.reward.actors * 4 * small.reward.actor_cpus
    held = small.engines.cpus + small.reward.encoder_cpus + actors
    assert held + small.workers.count * small.workers.cpus <= 2.0


def test_a_preset_names_known_keys_only(tmp_path):
    for preset, values in GRPO_PRESETS.items():
        path = tmp_path / f"{preset}.yaml"
        path.write_text(yaml.safe_dump({"workspace": "w", **values}))
        given = load_config(GrpoConfig, path)
        bare = tmp_path / "bare.yaml"
        bare.write_text(f"{{workspace: w, preset: {preset}}}")
        named = load_config(GrpoConfig, bare)
        assert given.model_dump() == {**named.model_dump(), "preset": None}


def test_a_variant_says_what_advantages_are_divided_by():
    assert loaded("objective.variant=dr_grpo").objective.scaled_by == "none"
    assert loaded("objective.variant=gspo").objective.scaled_by == "group"
    assert loaded("objective={variant: dr_grpo, scale: batch}").objective.scaled_by == "batch"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["rollouts.prompts=6", "rollouts.minibatches=4"], "give a multiple of 4"),
        (["rollouts.prompts=6", "workers.count=4"], "cannot be divided evenly among 1 minibatch"),
        (["objective.least_rewards=5"], "is more than a group has, 4"),
        (["lora={rank: 4, dropout: 0.1}"], "lora.dropout must be 0"),
        (["engines.push=nccl"], "needs GPUs on both sides"),
        (["precision=bf16"], "needs workers.gpus=1"),
        (["library={workspace: w, paths: [a]}"], "give workspace or paths, not both"),
        (["reward.weights={qualty: 1}"], "unknown reward component 'qualty'"),
        (["rollouts.grup=4"], "group"),
        (["preset=large"], "preset"),
    ],
)
def test_what_cannot_work_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        loaded(*overrides)


def test_every_key_is_described():
    assert all(text for _, _, text in describe(GrpoConfig))


def test_what_does_not_decide_the_weights_is_no_part_of_their_key():
    same = ["optimizer.micro_batch=1", "workers.timeout_s=5", "zero.stage=3", "engines.count=2"]
    assert loaded(*same).decides() == loaded().decides()
    for other in ("objective.beta=0.5", "rollouts.group=8", "seed=9", "reward.weights={format: 1}"):
        assert loaded(other).decides() != loaded().decides()
