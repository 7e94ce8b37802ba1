"""The turns of a list of messages, and the checks that every format's texts and roles pass."""

from __future__ import annotations

from collections.abc import Mapping

from mixup.errors import RecordError
from mixup.records import Turn

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai", "bot"), "assistant"
    ),
}


def message_turns(messages: object, name: str) -> list[Turn]:
    """The turns of a list of objects with role or from, and content or value.

    Content is text, or a list of text parts, which are joined by newlines. Empty system turns are
    dropped.

    Args:
        messages: The field's value, whatever it is.
        name: The field's name, for the error.

    Raises:
        RecordError: ``wrong_type``, ``bad_roles`` for an unknown role, or as ``check_text``.
    """
    if not isinstance(messages, list | tuple):
        raise RecordError("wrong_type", f"{name} must be a list, not {type_name(messages)}")
    turns = [_message_turn(message, name) for message in messages]
    return [turn for turn in turns if turn.role != "system" or turn.content.strip()]


def _message_turn(message: object, name: str) -> Turn:
    if not isinstance(message, dict):
        raise RecordError("wrong_type", f"{name} must hold objects, not {type_name(message)}")
    role = first_of(message, "role", "from")
    if not isinstance(role, str):
        raise RecordError("wrong_type", f"a role in {name} must be text, not {type_name(role)}")
    known = _ROLES.get(role.strip().lower())
    if known is None:
        raise RecordError("bad_roles", f"{ascii(role[:40])} is no role of user or assistant")
    return Turn(known, _content(first_of(message, "content", "value"), name))


def _content(content: object, name: str) -> str:
    if not isinstance(content, list | tuple):
        return text_of(content, f"a content in {name}")
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    if any(part is None for part in parts):
        raise RecordError("wrong_type", f"a content in {name} has a part that is not text")
    return "\n".join(text_of(part, f"a part in {name}") for part in parts)


def checked_roles(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The canonical turns if they are an optional system turn, then user and assistant in turn.

    Raises:
        RecordError: ``no_answer``, ``bad_roles`` or ``empty_turn``.
    """
    if turns and turns[0].role == "system" and not turns[0].content:
        turns = turns[1:]
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    roles = [turn.role for turn in spoken]
    if "assistant" not in roles:
        raise RecordError("no_answer", "there is no assistant turn")
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise RecordError("bad_roles", f"not user, assistant in turn: {', '.join(roles[:8])}")
    if not spoken[-1].content:
        raise RecordError("no_answer", "the last assistant turn is empty")
    for position, turn in enumerate(spoken):
        if not turn.content:
            raise RecordError("empty_turn", f"turn {position} ({turn.role}) is empty")
    return turns


def check_text(text: str) -> None:
    """Refuses text that UTF-8, or a reader in C, cannot hold.

    Raises:
        RecordError: ``invalid_unicode`` for a lone surrogate, ``nul_byte`` for a NUL.
    """
    if "\0" in text:
        raise RecordError("nul_byte", f"at character {text.index(chr(0))}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError("invalid_unicode", f"at character {error.start}") from error


def text_of(value: object, name: str) -> str:
    """The named field's text; null is empty.

    Raises:
        RecordError: ``wrong_type`` if it is no text, or as ``check_text``.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError("wrong_type", f"{name} must be text, not {type_name(value)}")
    check_text(value)
    return value


def first_of(row: Mapping[object, object], *names: str) -> object:
    """The first of the named fields that is not null, or None."""
    for name in names:
        if (found := row.get(name)) is not None:
            return found
    return None


def type_name(value: object) -> str:
    """A value's type, for an error."""
    return "null" if value is None else type(value).__name__
