"""Prose in raw text: markup and citations taken off, and sentences that stand on their own."""

from __future__ import annotations


def plain_text(text: str) -> str:
    """The prose of a text: without citation marks, wiki and HTML markup, tables and headings."""
    raise NotImplementedError


def sentences(text: str) -> list[str]:
    """The sentences of plain text, in order."""
    raise NotImplementedError
