"""Finds a model by bundled name, folder or hub id, and names just what was found: its revision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

from mixup.errors import ConfigError
from mixup.models import bundled

_BUNDLED = {
    bundled.MINILM: bundled.minilm_folder,
    bundled.SMOLLM2: bundled.smollm2_folder,
    bundled.DISTILLER: bundled.distiller_folder,
}
# Known without making the folder: a run with nothing to do loads no model.
_REVISIONS = {
    bundled.SMOLLM2: bundled.smollm2_revision,
    bundled.DISTILLER: bundled.distiller_revision,
}
_TOKENIZER_OF = {bundled.DISTILLER: bundled.SMOLLM2}
_CONTENT = (".safetensors", ".json", ".jinja", ".txt", ".model")
_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab*", "merges.txt", "*.model", "*.tiktoken"),
)


def model_folder(name: str) -> Path:
    """The local folder of a model, on the machine that calls; a hub id is downloaded once.

    Args:
        name: ``bundled:minilm``, ``bundled:smollm2``, ``bundled:distiller``, a folder, or a hub id.

    Raises:
        ConfigError: If there is no such model, or it has no safetensors weights.
    """
    if name in _BUNDLED:
        return _BUNDLED[name]()
    if name.startswith("bundled:"):
        raise ConfigError(f"unknown bundled model {name!r}; known: {', '.join(_BUNDLED)}")
    folder = Path(name).expanduser()
    found = folder if folder.is_dir() else _from_hub(name)
    if not any(found.rglob("*.safetensors")):
        raise ConfigError(f"model {name!r}: no safetensors weights in {found}; convert it first")
    return found


def model_revision(name: str) -> str:
    """The blake3-128 hash of a model's weights, tokenizer and template: never of its name.

    Raises:
        ConfigError: As ``model_folder``.
    """
    if name in _REVISIONS:
        return _REVISIONS[name]()
    folder = model_folder(name)
    hasher = blake3()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _CONTENT:
            hasher.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            hasher.update_mmap(path)
    return hasher.hexdigest(length=16)


def tokenizer_folder(name: str) -> Path:
    """The local folder of a model's tokenizer; of a hub id, only that part is downloaded.

    Args:
        name: As ``model_folder`` takes it.

    Raises:
        ConfigError: If there is no such model.
    """
    if name.startswith("bundled:"):
        return model_folder(_TOKENIZER_OF.get(name, name))
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _from_hub(name, (*_TOKENIZER, "config.json"))


def tokenizer_revision(name: str) -> str:
    """The blake3-128 hash of a model's tokenizer and chat template.

    Raises:
        ConfigError: As ``tokenizer_folder``.
    """
    name = _TOKENIZER_OF.get(name, name)
    if name in _REVISIONS:
        return _REVISIONS[name]()
    folder = tokenizer_folder(name)
    hasher = blake3()
    for path in sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern)}):
        if path.is_file():
            hasher.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            hasher.update_mmap(path)
    return hasher.hexdigest(length=16)


def _from_hub(name: str, patterns: Sequence[str] | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = list(patterns or [f"*{suffix}" for suffix in _CONTENT])
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model {name!r} is neither a folder nor a model that the hub gives: {reason}"
        ) from error
