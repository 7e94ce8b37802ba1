"""A job's config file: YAML and overrides read into a config, and its mistakes said in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from mixup.config import AS_NUMBER, AS_SECTION, AS_WORD, Section, nearest_key
from mixup.errors import ConfigError

_C = TypeVar("_C", bound=Section)


def load_config(model: type[_C], path: str | Path, overrides: Sequence[str] = ()) -> _C:
    """Read a YAML config and apply ``section.key=value`` overrides; values are YAML too.

    Raises:
        ConfigError: One line with the place, the value, what was expected and the remedy.
    """
    document = _read_yaml(Path(path))
    for override in overrides:
        _apply(document, override)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(model, error)}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = _yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config at {path}; expected a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds a {type(document).__name__}; expected keys and values")
    return document


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key which stands twice: the reader would take the last, unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node.

        Raises:
            YAMLError: If a key stands twice.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        YAMLError: If it is not YAML, or nested too deeply to be a config.
    """
    try:
        return yaml.load(text, _Loader)
    except (RecursionError, ValueError) as error:  # also a date such as 2026-02-30
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"override {override!r} is not of the form section.key=value")
    try:
        value = _yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {_short(override)!r}: the value is not YAML") from error
    *sections, last = key.split(".")
    place = document
    for section in sections:
        if place.get(section) is None:  # absent, or named with nothing below it
            place[section] = {}
        place = place[section]
        if not isinstance(place, dict):
            raise ConfigError(f"override {override!r}: {section!r} is not a section")
    place[last] = value


def _explain(model: type[Section], error: ValidationError) -> str:
    # A misspelt key is often a missing one too, and the misspelling is what to mend.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(_keys(first["loc"])) or "the config"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        names = [name for name, _, _ in describe(model)]
        if place in names:
            return f"the key {place!r} belongs to another `type` than the one chosen{more}"
        return f"unknown key {_short(place)!r}{nearest_key(place, names)}{more}"
    if first["type"] == "missing":
        return f"{place!r} is missing{more}"
    if first["type"] == "union_tag_invalid":
        context = first.get("ctx", {})
        kind, known = str(context.get("tag")), str(context.get("expected_tags"))
        near = nearest_key(
            kind, [name.strip(" '") for name in known.split(",")], f"; known: {known}"
        )
        return f"{place}.type: unknown kind {_short(kind)!r}{near}{more}"
    shown = _short(json.dumps(first["input"], default=str, ensure_ascii=False))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "model_attributes_type"):
        message = "expected a section, of keys and values"
    return f"{place}: {message} (it is {shown}){more}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


_KINDS = {
    "rate": ("column", "reference", "judge"),
    "engine": ("endpoint", "vllm"),
    "teacher": ("rules", "endpoint", "vllm"),
}
"""The kinds of each key that is a choice, as their ``type`` names them."""


def _keys(place: tuple[int | str, ...]) -> list[str]:
    """A place without the kinds that pydantic puts after a choice: `rate` and, there, `engine`."""
    steps: list[str] = []
    for step in map(str, place):
        if step in (AS_NUMBER, AS_SECTION, AS_WORD):
            continue
        if steps and step in _KINDS.get(steps[-1], ()):
            continue
        steps.append(step)
    return steps


def describe(model: type[Section], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """The (key, default, documentation) of every field of a config, sections walked through."""
    for name, found in model.model_fields.items():
        key = f"{prefix}{name}"
        sections = _sections(found.annotation)
        text = " ".join((found.description or "").split())
        if not sections:
            default = "required" if found.is_required() else json.dumps(found.default, default=str)
            yield key, default, text
            continue
        is_plain = isinstance(found.default, int | float | str)  # a section in one of its forms
        plain = json.dumps(found.default) if is_plain else ""
        yield key, plain, text or " ".join((sections[0].__doc__ or "").split())
        if len(sections) > 1:
            kind = "required" if found.is_required() else json.dumps(found.default.type)
            yield f"{key}.type", kind, _choices(sections)
        seen = {f"{key}.type"} if len(sections) > 1 else set()
        for section in sections:
            for row in describe(section, f"{key}."):
                if row[0] not in seen:
                    seen.add(row[0])
                    yield row


def _choices(sections: Sequence[type[Section]]) -> str:
    return " ".join(
        f"`{section.model_fields['type'].default}`: {' '.join((section.__doc__ or '').split())}"
        for section in sections
    )


def _sections(annotation: Any) -> list[type[Section]]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [section for part in get_args(annotation) for section in _sections(part)]
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    return [annotation] if is_section else []
