"""What goes wrong, and what is said of it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_training import tiny_config

from mixup.errors import ConfigError, MixupError, ResourceError, TrainingError
from mixup.pipelines.train_sft import train_sft


def changed(model: Path, folder: Path, file: str, **values: object) -> Path:
    """A copy of a model with other values in one of its JSON files; None takes one away."""
    shutil.copytree(model, folder)
    path = folder / file
    document = json.loads(path.read_text()) | values
    path.write_text(
        json.dumps({key: value for key, value in document.items() if value is not None})
    )
    return folder


def refused(config) -> str:
    with pytest.raises(ConfigError) as raised:
        train_sft(config)
    return str(raised.value)


def test_a_model_without_a_chat_template_is_refused(tiny_model, examples, tmp_path):
    bare = changed(tiny_model, tmp_path / "m", "tokenizer_config.json")
    (bare / "chat_template.jinja").unlink()
    said = refused(tiny_config(tmp_path / "w", bare, examples))
    assert "has no chat template" in said
    assert "template=plain" in said
    assert not (tmp_path / "w" / "tables").exists()  # nothing has started


def test_a_vocabulary_that_is_not_the_weights_is_refused(tiny_model, examples, tmp_path):
    small = changed(tiny_model, tmp_path / "m", "config.json", vocab_size=100)
    assert "its tokenizer has 259 tokens, its weights embed 100" in refused(
        tiny_config(tmp_path / "w", small, examples)
    )


def test_a_window_longer_than_the_context_is_refused(tiny_model, examples, tmp_path):
    config = tiny_config(tmp_path / "w", tiny_model, examples, "examples.window=300")
    assert "longer than the context" in refused(config)


def test_the_end_of_text_pads_where_there_is_no_padding(tiny_model, tmp_path):
    from mixup.training.models import find_base, load_tokenizer

    bare = changed(tiny_model, tmp_path / "m", "tokenizer_config.json", pad_token=None)
    tokenizer = load_tokenizer(find_base(str(bare)), template="chat")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None
    bare = changed(bare, tmp_path / "n", "tokenizer_config.json", eos_token=None)
    with pytest.raises(ConfigError, match="names no end of text"):
        load_tokenizer(find_base(str(bare)), template="plain")


def test_more_than_the_cluster_has_is_said_before_anything_starts(
    ray_cluster, tiny_model, examples, tmp_path
):
    config = tiny_config(tmp_path / "w", tiny_model, examples, "workers.cpus=1.5")
    with pytest.raises(ResourceError, match="training workers 2 x 1.5 CPU"):
        train_sft(config)
    assert not (tmp_path / "w" / "checkpoints").exists()


def test_what_others_hold_is_waited_for_and_then_said(ray_cluster):
    import ray

    from mixup.actors.resources import Demand
    from mixup.training.launch import wait_for

    @ray.remote(num_cpus=1)
    class Holder:
        def ready(self) -> None: ...

    holder: Any = Holder.remote()
    ray.get(holder.ready.remote())
    start = time.monotonic()
    with pytest.raises(
        ResourceError, match="no room for all of them in 1 s .free now, in all: 1 C"
    ):
        wait_for(Demand("training workers", 2, 1.0), [{"CPU": 1.0}] * 2, 1.0)
    assert time.monotonic() - start < 10
    ray.kill(holder)
    wait_for(Demand("training workers", 2, 1.0), [{"CPU": 1.0}] * 2, 30.0)


def test_too_many_examples_left_out_is_said(ray_cluster, tiny_model, examples, tmp_path):
    config = tiny_config(tmp_path / "w", tiny_model, examples, "examples.window=60")
    with pytest.raises(MixupError, match=r"examples are left out \(too_long \d+\)"):
        train_sft(config)


@pytest.mark.thorough
def test_a_loss_that_is_no_number_ends_the_run_at_once(ray_cluster, tiny_model, examples, tmp_path):
    config = tiny_config(
        tmp_path / "w",
        tiny_model,
        examples,
        "optimizer={learning_rate: 1e30, warmup: 0, max_grad_norm: 1e30}",
        "checkpoints.every_steps=1",
    )
    start = time.monotonic()
    with pytest.raises(
        TrainingError, match="at step 2 .*step 1 is kept.*Lower optimizer.learning_"
    ):
        train_sft(config)
    assert time.monotonic() - start < 90  # it was not tried again


@pytest.mark.thorough
def test_a_model_of_another_training_is_not_replaced(ray_cluster, tiny_model, examples, tmp_path):
    config = tiny_config(tmp_path / "w", tiny_model, examples, "optimizer.max_steps=1")
    train_sft(config)
    other = tiny_config(tmp_path / "w", tiny_model, examples, "optimizer.max_steps=2")
    assert "holds a model that was trained otherwise" in refused(other)
    replaced = tiny_config(
        tmp_path / "w", tiny_model, examples, "optimizer.max_steps=2", "overwrite=true"
    )
    assert train_sft(replaced).description["steps"] == 2
