"""The trained model as a folder of the Hugging Face form, which any tool takes by its path.

Weights leave the workers twice: as part of a checkpoint, as they are (adapters, or all weights),
and then, by one task without DeepSpeed, merged, in the precision that is asked for, with tokenizer,
chat template, generation config and card.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from mixup.errors import TrainingError
from mixup.models.adapters import load_float32, load_merged
from mixup.training.models import Base, Template, load_tokenizer
from mixup.workspace import Workspace

if TYPE_CHECKING:
    from transformers import Trainer

MODELS = "models"
DESCRIPTION = "training.json"
"""What says that a model's folder is whole, and what it was made of."""
ADAPTER = "adapter"
"""The folder in a model's folder that has the adapter whose merged weights the model has."""
_ADAPTER, _ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes:
        base: The base model.
        template: How examples were rendered.
        end_id: The token that ends an answer.
        is_adapter: Whether the weights are LoRA adapters.
        merge: Whether adapters are merged.
        dtype: The precision of the weights: ``bfloat16`` or ``float32``.
        adapter: That of adapters which are written beside merged weights; None: they are not.
        description: JSON data of what the model was made of.
        card: The text of its README.md.
    """

    base: Base
    template: Template
    end_id: int
    is_adapter: bool
    merge: bool
    dtype: str
    adapter: str | None
    description: Mapping[str, Any]
    card: str


def write_weights(trainer: Trainer, folder: Path, *, is_writer: bool) -> None:
    """Write the weights that a trainer has now as safetensors; called by every rank at once.

    Args:
        trainer: Its model is wrapped by DeepSpeed.
        folder: Where they go.
        is_writer: Whether this rank writes; the others only take part in gathering.
    """
    model: Any = trainer.model
    if not hasattr(model, "peft_config"):
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if is_writer:
            model.save_pretrained(folder, state_dict=state, safe_serialization=True)
        return
    with _gathered(model):
        if is_writer:
            model.save_pretrained(folder, safe_serialization=True)


@contextlib.contextmanager
def _gathered(model: Any) -> Iterator[None]:
    """The trained weights whole on every rank, for the block; under ZeRO-3 they are in parts."""
    parts = [w for w in model.parameters() if w.requires_grad and hasattr(w, "ds_id")]
    if not parts:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parts):
        yield


def export_model(export: Export, weights: Path, folder: Path) -> list[str]:
    """Write a model's folder from the weights of a checkpoint; the names of its files.

    Raises:
        TrainingError: If a weight is no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(export.base, template=export.template)
    if export.is_adapter and not export.merge:
        _write_adapter(export, weights, folder, export.dtype)
    else:
        model = _whole_model(export, weights)
        _set_generation(model, export, tokenizer)
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").write_text(export.card, encoding="utf-8")
    if export.adapter is not None:
        _write_adapter(export, weights, folder / ADAPTER, export.adapter)
    tokenizer.save_pretrained(str(folder))
    return sorted(path.name for path in folder.iterdir())


def _whole_model(export: Export, weights: Path) -> Any:
    import torch

    if export.is_adapter:
        model: Any = load_merged(export.base.folder, weights)
    else:
        model = load_float32(weights)
    _check_numbers(model.named_parameters())
    return model.to(getattr(torch, export.dtype))


def _check_numbers(tensors: Iterable[tuple[str, Any]]) -> None:
    import torch

    for name, values in tensors:
        if not torch.isfinite(values).all():
            raise TrainingError(f"the weights {name} have values that are no numbers")


def _set_generation(model: Any, export: Export, tokenizer: Any) -> None:
    """Have generation stop where an answer ends, wherever else the base's own config stops too."""
    from transformers import GenerationConfig

    with contextlib.suppress(OSError):  # a base without one
        model.generation_config = GenerationConfig.from_pretrained(export.base.folder)
    given = model.generation_config.eos_token_id
    known = [] if given is None else [given] if isinstance(given, int) else list(given)
    ends = list(dict.fromkeys([export.end_id, *known]))
    model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _write_adapter(export: Export, weights: Path, folder: Path, dtype: str) -> None:
    """Write the adapter alone, with its config."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(weights / _ADAPTER)
    _check_numbers(tensors.items())
    cast = {name: values.to(getattr(torch, dtype)) for name, values in tensors.items()}
    save_file(cast, folder / _ADAPTER, metadata={"format": "pt"})
    config = json.loads((weights / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = export.base.name  # not a place on this machine
    (folder / _ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "README.md").write_text(export.card, encoding="utf-8")


def publish_model(workspace: Workspace, name: str, export: Export, weights: Path) -> list[str]:
    """Write a model into ``models/`` of the workspace, in place of one of the same name.

    It is whole as soon as it has its description, which is written last.

    Returns:
        The names of its files.
    """
    target = f"{MODELS}/{name}"
    filesystem, root = workspace.filesystem()
    with tempfile.TemporaryDirectory(prefix="mixup-model-") as temporary:
        if workspace.is_local:
            with workspace.staged_folder(target) as staged:
                files = export_model(export, weights, Path(staged))
                text = json.dumps(export.description, indent=2, ensure_ascii=False)
                (Path(staged) / DESCRIPTION).write_text(text, encoding="utf-8")
                # First what says that it is whole: a kill leaves no half of a model that counts.
                Path(f"{root}/{target}/{DESCRIPTION}").unlink(missing_ok=True)
                shutil.rmtree(f"{root}/{target}", ignore_errors=True)
            return files
        files = export_model(export, weights, Path(temporary))
        if workspace.exists(target):
            if workspace.exists(f"{target}/{DESCRIPTION}"):
                filesystem.delete_file(f"{root}/{target}/{DESCRIPTION}")
            filesystem.delete_dir(f"{root}/{target}")
        fs.copy_files(temporary, f"{root}/{target}", fs.LocalFileSystem(), filesystem)
        workspace.write_json(f"{target}/{DESCRIPTION}", dict(export.description))
    return files


def description_of(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """What the model of a name was made of; None where there is none that is whole."""
    return workspace.read_json(f"{MODELS}/{name}/{DESCRIPTION}")


def card(
    title: str, base: str, rows: Sequence[tuple[str, str]], config: Mapping[str, Any], *, kind: str
) -> str:
    """A model card: what the model was made of, as a table, and with which config.

    Args:
        title: Its name.
        base: The base model.
        rows: Names and values of the table.
        config: The job's config.
        kind: A word for how it was trained, such as ``sft``.
    """
    header = [
        *("---", "library_name: transformers", "pipeline_tag: text-generation"),
        *(f"base_model: {json.dumps(base)}", f"tags: [mixup, {kind}]", "---"),
    ]
    table = [f"| {name} | {value} |" for name, value in rows]
    shown = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True)
    return "\n".join(
        [
            *(*header, "", f"# {title}", ""),
            *("Trained by mixup. The licence of the base model and those of the data apply.", ""),
            *("| what | value |", "|---|---|", *table, ""),
            *("## Config", "", "```json", shown, "```", ""),
        ]
    )
