"""Decontamination: which texts hold a question of an evaluation set.

A question is found by a shared n-gram of words, or whole (*exact*): as all of a turn, or contained
in the text when it is long enough to be more than a phrase. Texts are compared as their normal
words (``selection.words``). Hashes only propose: every hit is compared word by word.

Source: 13-gram overlap is the rule of GPT-3 (Brown et al. 2020, appendix C). As there, n-grams that
many documents share are left out; here those of more than ``max_questions`` questions of one file,
which are a benchmark's own wording ("Choose the sentence that ...") and not a question. Nor is an
n-gram of which less than half are different words with letters evidence, such as ``for i in range``
and what follows in any program.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixup.selection.questions import labeled_part
from mixup.selection.windows import Hashes, Text
from mixup.selection.words import UNITS_OF_WORD, normal_words, units_of

EXACT = "exact"
NGRAM = "ngram"
CUT_CHARS = 300
FEWEST_FIELD_WORDS = 4
"""A question of fewer words ("What is this?") is no evidence, not even as all of a turn."""


@dataclass(frozen=True)
class Question:
    """An evaluation question: its file's name, its place (path:offset) and its text."""

    benchmark: str
    place: str
    text: str


@dataclass(frozen=True)
class OverlapRules:
    """What counts as holding a question.

    Attributes:
        ngram: Words of an n-gram that must be shared.
        min_words: Words that a question needs to be looked for inside a text.
        max_questions: An n-gram in more questions of one file is boilerplate.
        min_share: Least share of the question's words that the shared run of words makes up. It is
            met by any n-gram of a question of up to ngram / min_share words; of a longer one, which
            is mostly pasted material such as a web page, a few words more must be shared.
    """

    ngram: int = 13
    min_words: int = 8
    max_questions: int = 10
    min_share: float = 0.05


@dataclass(frozen=True)
class Match:
    """That a text holds a question, and the words by which it is known, cut to ``CUT_CHARS``."""

    kind: str
    benchmark: str
    question: str
    place: str
    matched: str


_PARTS = ("hashes", "questions", "starts")
_HASHED = ("whole", "anchors", "grams")


def _unit_table(words: Sequence[str]) -> np.ndarray:
    return np.array([UNITS_OF_WORD, *map(units_of, words)], np.int64)


def _told_by(words: Sequence[str]) -> np.ndarray:
    """The units of each word that tells something: not of a number or a single spaced letter."""
    units = _unit_table(words)
    tells = [False, *(_tells(word, n) for word, n in zip(words, units[1:], strict=True))]
    return np.where(tells, units, 0)


def _tells(word: str, units: int) -> bool:
    return (len(word) > 1 or units < UNITS_OF_WORD) and any(map(str.isalpha, word))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _arrays(
    flat: np.ndarray,
    lengths: np.ndarray,
    file_of: np.ndarray,
    units: np.ndarray,
    counts: np.ndarray,
    rules: OverlapRules,
) -> dict[str, np.ndarray]:
    """The arrays of an index: all questions' words one after the other, and hashes of windows."""
    text, offsets = Text(flat, units), _offsets(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    first, last = offsets[:-1], offsets[1:]
    long_enough = np.flatnonzero(text.units(first, last) >= FEWEST_FIELD_WORDS * UNITS_OF_WORD)
    whole = Hashes.of(text.hashes(first, last)[long_enough], long_enough, first[long_enough])
    anchors = _windows(text, owner, rules.min_words)
    is_first = anchors.starts_M == first[anchors.questions_M]
    grams = _windows(text, owner, rules.ngram)
    grams = grams.only(_different(grams, text, rules.ngram, counts) >= rules.ngram)
    grams = _without_boilerplate(grams, file_of, rules.max_questions)
    found = {"whole": whole, "anchors": anchors.only(is_first), "grams": grams}
    parts = {
        f"{name}_{part}": getattr(hashes.small(), f"{part}_M")
        for name, hashes in found.items()
        for part in _PARTS
    }
    return {"flat": flat.astype(np.int32), "lengths": lengths, **parts}


def _windows(text: Text, owner: np.ndarray, words: int) -> Hashes:
    """The windows of some words that lie within one question each."""
    starts, ends = text.windows(words * UNITS_OF_WORD)
    whole = owner[starts] == owner[ends - 1]
    starts, ends = starts[whole], ends[whole]
    return Hashes.of(text.hashes(starts, ends), owner[starts], starts)


def _different(grams: Hashes, text: Text, words: int, counts: np.ndarray) -> np.ndarray:
    """The units that each n-gram's words tell, each word once."""
    flat = text.ids
    order = np.argsort(flat, kind="stable")
    before = np.full(len(flat), -1)  # where the same word stood last
    same = flat[order[1:]] == flat[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    starts, ends = text.windows(words * UNITS_OF_WORD)
    length_of = np.zeros(len(flat), np.int64)
    length_of[starts] = ends - starts
    lengths, told = length_of[grams.starts_M], np.zeros(len(grams.starts_M), np.int64)
    for step in range(int(lengths.max(initial=0))):
        at = np.minimum(grams.starts_M + step, len(flat) - 1)
        fresh = (step < lengths) & (before[at] < grams.starts_M)
        told += np.where(fresh, counts[flat[at]], 0)
    return told


def _without_boilerplate(grams: Hashes, file_of: np.ndarray, limit: int) -> Hashes:
    """One row for each n-gram and question, but for n-grams of too many questions of one file.

    Rows of one hash stand in the order of the questions, and questions in that of the files.
    """
    if not len(grams.hashes_M):
        return grams
    new_hash = np.diff(grams.hashes_M, prepend=grams.hashes_M[0] + np.uint64(1)) != 0
    grams = grams.only(new_hash | (np.diff(grams.questions_M, prepend=-1) != 0))
    new_hash = np.diff(grams.hashes_M, prepend=grams.hashes_M[0] + np.uint64(1)) != 0
    new_file = new_hash | (np.diff(file_of[grams.questions_M], prepend=-1) != 0)
    of_hash, of_file = np.cumsum(new_hash) - 1, np.cumsum(new_file) - 1
    too_common = np.bincount(of_file) > limit
    common = np.zeros(of_hash[-1] + 1, bool)
    common[of_hash[too_common[of_file]]] = True
    return grams.only(~common[of_hash])


class QuestionIndex:
    """An index over evaluation questions that tells which of them a text holds.

    It keeps each question's words as numbers, so its size is about 30 bytes a word of the
    questions, and comparing words is comparing numbers. Word 0 stands for any word that no question
    has.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        words: Sequence[str],
        rules: OverlapRules,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self.questions, self.words, self.rules = list(questions), list(words), rules
        self._id_of = {word: place for place, word in enumerate(words, start=1)}
        self._units = _unit_table(words)
        self._arrays = dict(arrays)
        self._flat, self._lengths = arrays["flat"], arrays["lengths"]
        self._starts = _offsets(self._lengths)
        self._whole, self._anchors, self._grams = (
            Hashes(*(arrays[f"{name}_{part}"] for part in _PARTS)) for name in _HASHED
        )

    @classmethod
    def build(cls, questions: Iterable[Question], rules: OverlapRules) -> QuestionIndex:
        """The index of some questions, those of one file in a row.

        Of equal ones in a file the first is kept.
        """
        kept: dict[tuple[str, tuple[str, ...]], Question] = {}
        ids: dict[str, int] = {}
        for question in questions:
            found = tuple(normal_words(question.text))
            for word in found:
                ids.setdefault(word, len(ids) + 1)
            if found:
                kept.setdefault((question.benchmark, found), question)
        flat = np.array([ids[word] for _, found in kept for word in found], np.int64)
        lengths = np.array([len(found) for _, found in kept], np.int64)
        files = {name: place for place, name in enumerate(dict.fromkeys(b for b, _ in kept))}
        file_of = np.array([files[benchmark] for benchmark, _ in kept], np.int64)
        words = list(ids)
        arrays = _arrays(flat, lengths, file_of, _unit_table(words), _told_by(words), rules)
        cut = [
            replace(question, text=question.text.strip()[:CUT_CHARS]) for question in kept.values()
        ]
        return cls(cut, words, rules, arrays)

    def to_bytes(self) -> bytes:
        """The index as one file, read by ``from_bytes``."""
        document = {
            "questions": [[q.benchmark, q.place, q.text] for q in self.questions],
            "words": self.words,
            "rules": vars(self.rules),
        }
        sink = io.BytesIO()
        text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        members: dict[str, Any] = {"document": np.frombuffer(text, np.uint8), **self._arrays}
        np.savez(sink, **members)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> QuestionIndex:
        """The index that ``to_bytes`` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        document = json.loads(arrays.pop("document").tobytes())
        questions = [Question(*parts) for parts in document["questions"]]
        return cls(questions, document["words"], OverlapRules(**document["rules"]), arrays)

    def counts(self) -> dict[str, int]:
        """Questions by benchmark."""
        return dict(Counter(question.benchmark for question in self.questions))

    def _ids(self, words: Sequence[str]) -> np.ndarray:
        get = self._id_of.get
        return np.array([get(word, 0) for word in words], np.int64)

    def find(self, texts: Sequence[str]) -> Match | None:
        """The question that a conversation holds, or None.

        A whole question goes before an n-gram of one; of several the first in the order of the
        index is named.

        Args:
            texts: The texts of its turns. Each is compared as a whole, and all together, in order,
                are searched for n-grams and contained questions.
        """
        turns = [normal_words(text) for text in texts]
        words = [word for turn in turns for word in turn]
        ids = self._ids(words)
        if not ids.any():
            return None
        text = Text(ids, self._units)
        whole = [*self._equal(texts, turns), *self._contained(text)]
        if whole:
            return self._match(EXACT, min(whole), normal_words(self.questions[min(whole)].text))
        return self._shared(text, words)

    def _equal(self, texts: Sequence[str], turns: Sequence[list[str]]) -> list[int]:
        """Questions that are all of a turn, or of its part behind a ``Question:`` label."""
        parts = [labeled_part(text) for text in texts]
        fields = [*turns, *(normal_words(p) for p, t in zip(parts, texts, strict=True) if p != t)]
        found = []
        for words in fields:
            ids = self._ids(words)
            if len(ids) and ids.all():
                text = Text(ids, self._units)
                found += self._wholes(text, 0, len(ids))
        return found

    def _contained(self, text: Text) -> list[int]:
        """Questions of enough words that stand whole in a text."""
        starts, ends = text.windows(self.rules.min_words * UNITS_OF_WORD)
        hashes = text.hashes(starts, ends)
        found = []
        for place in self._anchors.present(hashes).tolist():
            held = self._anchors.held(hashes[place])
            questions = self._anchors.questions_M[held.start : held.stop]
            for length in np.unique(self._lengths[questions]).tolist():
                start = int(starts[place])
                if start + length <= len(text.ids):
                    found += self._wholes(text, start, start + length)
        return found

    def _wholes(self, text: Text, start: int, end: int) -> list[int]:
        """Questions whose words are exactly those of a window."""
        value = text.hashes(np.array([start]), np.array([end]))[0]
        rows = self._whole.held(value)
        questions = self._whole.questions_M[rows.start : rows.stop].tolist()
        return [q for q in questions if self._is_at(q, self._starts[q], text, start, end)]

    def _is_at(self, question: int, at: Any, text: Text, start: int, end: int) -> bool:
        """Whether the words of a question from a place on are those of a window."""
        last = at + end - start
        inside = last <= self._starts[question + 1]
        return bool(inside and np.array_equal(self._flat[at:last], text.ids[start:end]))

    def _shared(self, text: Text, words: Sequence[str]) -> Match | None:
        """The first question that shares an n-gram, with the whole run of shared words."""
        starts, ends = text.windows(self.rules.ngram * UNITS_OF_WORD)
        hashes = text.hashes(starts, ends)
        for place in self._grams.present(hashes).tolist():
            start, end = int(starts[place]), int(ends[place])
            for row in self._grams.held(hashes[place]):
                question, at = int(self._grams.questions_M[row]), int(self._grams.starts_M[row])
                if self._is_at(question, at, text, start, end):
                    stop = end + self._run(question, at + end - start, text, end)
                    if stop - start >= self.rules.min_share * self._lengths[question]:
                        return self._match(NGRAM, question, words[start:stop])
        return None

    def _run(self, question: int, at: int, text: Text, start: int) -> int:
        """How many words go on to be the same."""
        rest = min(int(self._starts[question + 1]) - at, len(text.ids) - start)
        same = self._flat[at : at + rest] == text.ids[start : start + rest]
        return rest if same.all() else int(np.argmin(same))

    def _match(self, kind: str, place: int, words: Sequence[str]) -> Match:
        question = self.questions[place]
        matched = " ".join(words)[:CUT_CHARS]
        return Match(
            kind, question.benchmark, question.text.strip()[:CUT_CHARS], question.place, matched
        )
