"""A mutation fuzzer of everything that reads input rows.

    python -m tests.fuzz.rows --seconds 600 --seed 1

It mutates rows of every known format and files of every known type, and holds the readers to their
contract: they raise nothing for content, every row is a canonical record or has one known reason,
no place comes twice, places ascend, and a file read in parts gives what it gives as a whole. What
breaks it is kept as a file under ``--crashes``, with the error beside it. Files are fuzzed in a
process of their own: Arrow's readers are C++, and one of their crashes must not end the search.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import io
import itertools
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from mixup.config import IngestConfig
from mixup.errors import RecordError
from mixup.records import ROLES, canonical_turns, uid_of
from mixup.stages.parsed import PARSED, parsed_fields, parsed_table
from mixup.stages.rows import read_rows
from mixup.stages.sources import BUNDLED_SAMPLE, Chunk, chunks_of, find_files
from mixup.stages.streams import UNREACHABLE, UNREADABLE, RawRow
from mixup.text.formats import REASONS, ParsedRow, decode_line, parse_row

READ_REASONS = {UNREADABLE, UNREACHABLE, "row_too_long", "unreadable_row", "broken_array"}
LONGEST_S = 30
MEMORY = 6_000_000_000

TURNS = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Rhine"},
]
ROWS: list[Any] = [
    {"instruction": "Name a river.", "input": "", "output": "The Rhine", "id": 7, "rating": 4.5},
    {"instruction": "Add.", "input": "<noinput>", "output": "2\n", "source": "x", "license": "MIT"},
    {"instruction": "Sum", "context": "1 and 2", "response": "3", "lang": "en", "category": "qa"},
    {"prompt": "Say <answer>", "completion": "=HYPERLINK(\"http://x\")", "system": "Be brief."},
    {"prompt": TURNS[:1], "completion": TURNS[1:]},
    {"messages": TURNS * 2, "source": "chat"},
    {"messages": [{"role": "system", "content": [{"type": "text", "text": "é"}]}, *TURNS]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "<script>"}]},
    {"conversations": [], "instruction": None, "output": None, "history": [["a", "b"]]},
]  # fmt: skip
NAMES = [
    *("messages", "conversations", "instruction", "input", "context", "output", "response"),
    *("prompt", "completion", "system", "history", "role", "from", "content", "value", "text"),
    *("source", "licence", "license", "language", "lang", "id", "rating", ""),
]
WORDS = [
    *("user", "assistant", "system", "gpt", "human", "tool", " User ", "", " ", "\r\n", "\0"),
    *("\ud800", "\ufeff", "e\u0301", "\u2028", "<noinput>", "</answer>", "A) x\nB) y", "x" * 600),
]
TOKENS = [
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\\u0000", b"\\ud83d"),
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"null", b"NaN", b"-", b"1e999"),
    b"1" * 5000,
    *(b"[" * 1500, b"[" * 1500 + b"]" * 1500, b'{"a":' * 1200, b'{"a":1,"a":2}', b"x" * 3000),
]  # fmt: skip


@dataclass
class Findings:
    """What a search did and found."""

    executions: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)


def seed_rows() -> list[Any]:
    """Rows of all formats, those of the bundled sample among them."""
    found = list(ROWS)
    for file in find_files([BUNDLED_SAMPLE]):
        rows = read_rows(Chunk(file), max_row_bytes=1 << 20)
        for row in itertools.islice(rows, 30):
            with suppress(RecordError):  # some of the sample's rows are broken on purpose
                found.append(decode_line(row.raw))
    return found


# --- mutations -----------------------------------------------------------------------------------


def any_json(draw: random.Random, depth: int = 3) -> Any:
    """A random JSON value, with what rows are made of in it."""
    kind = draw.randrange(9 if depth else 6)
    if kind >= 7:
        return {
            draw.choice(NAMES + WORDS): any_json(draw, depth - 1) for _ in range(draw.randrange(4))
        }
    if kind == 6:
        return [any_json(draw, depth - 1) for _ in range(draw.randrange(4))]
    return draw.choice(
        [
            None,
            True,
            draw.uniform(-1e9, 1e9),
            draw.getrandbits(70),
            draw.choice(WORDS),
            copy.deepcopy(TURNS),
        ]
    )


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = (
        list(value)
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in keys:
        yield value, key
        yield from places_in(value[key])


def mutated_value(draw: random.Random, row: Any) -> Any:
    """A row with some of its parts changed, moved, renamed, doubled or dropped."""
    row = copy.deepcopy(row)
    for _ in range(draw.choice((1, 1, 2, 4))):
        places = list(places_in(row))
        if not places:
            return any_json(draw)
        holder, key = draw.choice(places)
        step = draw.randrange(6)
        if step == 0:
            del holder[key]
        elif step == 1 and isinstance(holder, dict):
            holder[draw.choice(NAMES)] = holder.pop(key)
        elif step == 2 and isinstance(holder, list):
            holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif step == 3 and isinstance(holder[key], str):
            at = draw.randrange(len(holder[key]) + 1)
            holder[key] = holder[key][:at] + draw.choice(WORDS) + holder[key][at:]
        elif step == 4:
            holder[key] = [holder[key]]
        else:
            holder[key] = any_json(draw)
    return row


def mutated_bytes(draw: random.Random, raw: bytes) -> bytes:
    """Bytes with some flipped, cut, doubled, or with a token of trouble among them."""
    data = bytearray(raw)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at, other = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
        step = draw.randrange(6)
        if step == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif step == 1 and at < len(data):
            data[at] = draw.randrange(256)
        elif step == 2:
            data[at:at] = draw.choice(TOKENS)
        elif step == 3 and other - at < 400:
            del data[at:other]
        elif step == 4:
            data[at:at] = data[at : min(other, at + 200)]
        elif step == 5 and draw.random() < 0.2:
            del data[at:]
    return bytes(data)


def line_of(row: Any, draw: random.Random) -> bytes:
    return json.dumps(row, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


# --- the contract --------------------------------------------------------------------------------


def check_row(raw: bytes) -> str:
    """A line is a canonical record or has a known reason; which."""
    try:
        parsed = parse_row(decode_line(raw))
    except RecordError as error:
        refusal = error
    else:
        check_parsed(parsed)
        return "row"
    assert refusal.reason in REASONS, refusal.reason
    str(refusal).encode()
    return refusal.reason


def check_parsed(parsed: ParsedRow) -> None:
    """A parsed row is canonical, can be stored, and keeps its key when it is read again."""
    turns = parsed.turns
    assert turns == canonical_turns(turns)
    roles = [turn.role for turn in turns if turn.role != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert roles
    assert all(turn.role in ROLES and turn.content for turn in turns)
    assert all(turn.role != "system" for turn in turns[1:])
    texts = [*(turn.content for turn in turns), parsed.source, parsed.licence, parsed.language]
    for text in filter(None, [*texts, *parsed.extra, *map(str, parsed.extra.values())]):
        assert "\0" not in text
        text.encode()
    json.dumps(parsed.extra, allow_nan=False)
    again = parse_row({"messages": [turn._asdict() for turn in turns]})
    assert again.turns == turns
    assert uid_of(again.turns) == uid_of(turns)


CONFIG = IngestConfig(paths=["x"])


def check_file(path: Path, max_row_bytes: int, chunk_bytes: int) -> str:
    """A file's rows have ascending places, are stored or refused, whatever its parts."""
    (file,) = find_files([str(path)])
    whole = list(read_rows(Chunk(file), max_row_bytes=max_row_bytes))
    check_places(whole)
    fields = [parsed_fields(row, file, CONFIG, 8) for row in whole]
    assert parsed_table(fields).schema == PARSED
    reasons = [found.get("reason") for found in fields]
    assert set(reasons) <= {None, *READ_REASONS, *REASONS}, reasons
    parts = chunks_of(file, chunk_bytes)
    if len(parts) > 1:
        found = [row for part in parts for row in read_rows(part, max_row_bytes=max_row_bytes)]
        check_places(found)
        assert readable(found) == readable(whole)
    if path.suffix == ".jsonl":
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        assert len(lines) == len(whole)
    return "+".join(sorted({reason or "row" for reason in reasons})) or "no rows"


def readable(rows: list[RawRow]) -> list[tuple[int, bytes, str]]:
    """The rows that a break of another part does not touch."""
    return [(row.offset, row.raw, repr(row.value)) for row in rows if row.offset >= 0]


def check_places(rows: list[RawRow]) -> None:
    offsets = [row.offset for row in rows if row.offset >= 0]
    assert all(first < second for first, second in itertools.pairwise(offsets)), offsets
    breaks = [row for row in rows if row.offset < 0]
    assert len({row.offset for row in breaks}) == len(breaks)
    assert all(row.reason in (UNREADABLE, UNREACHABLE) for row in breaks)


# --- files ---------------------------------------------------------------------------------------


def parquet_bytes(rows: list[Any], draw: random.Random) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows),
        sink,
        row_group_size=draw.choice((1, 3, 100)),
        compression=draw.choice(("none", "zstd", "snappy")),
        use_dictionary=draw.random() < 0.5,
        write_page_checksum=draw.random() < 0.3,
    )
    return sink.getvalue()


def arrow_bytes(rows: list[Any], draw: random.Random) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist(rows)
    make = draw.choice((pa.ipc.new_stream, pa.ipc.new_file))
    options = pa.ipc.IpcWriteOptions(compression=draw.choice((None, "zstd", "lz4")))
    with make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=draw.choice((1, 3, 100)))
    return sink.getvalue()


def lines_bytes(rows: list[Any], draw: random.Random) -> bytes:
    end = draw.choice((b"\n", b"\r\n"))
    return end.join(line_of(row, draw) for row in rows)


def array_bytes(rows: list[Any], draw: random.Random) -> bytes:
    return json.dumps(rows, indent=draw.choice((None, 1))).encode()


zstd = zstandard.ZstdCompressor(write_checksum=True).compress
KINDS: dict[str, tuple[Callable[[list[Any], random.Random], bytes], Callable[[bytes], bytes]]] = {
    "f.jsonl": (lines_bytes, bytes),
    "f.json": (array_bytes, bytes),
    "f.parquet": (parquet_bytes, bytes),
    "f.arrow": (arrow_bytes, bytes),
    "f.jsonl.gz": (lines_bytes, gzip.compress),
    "f.jsonl.zst": (lines_bytes, zstd),
    "f.json.gz": (array_bytes, gzip.compress),
    "f.json.zst": (array_bytes, zstd),
}


def one_file(draw: random.Random, seeds: list[Any], folder: Path) -> tuple[Path, str]:
    """Make, mutate and check one file; its path and outcome."""
    name = draw.choice(list(KINDS))
    write, pack = KINDS[name]
    uniform = draw.choice(ROWS[:8])  # Arrow's columns are those of all rows
    rows = [uniform] * draw.randrange(1, 9) if "p" in name or "arrow" in name else []
    rows = rows or draw.choices(seeds, k=draw.randrange(1, 9))
    content = write(rows, draw)
    if pack is not bytes and draw.random() < 0.5:
        content = pack(mutated_bytes(draw, content))
    else:
        content = mutated_bytes(draw, pack(content))
    path = folder / name
    path.write_bytes(content)
    outcome = check_file(
        path, draw.choice((60, 1 << 20, 1 << 20)), draw.choice((1, 50, 500, 1 << 20))
    )
    return path, f"{name}: {outcome}"


# --- the search ----------------------------------------------------------------------------------


def search_rows(draw: random.Random, seeds: list[Any], until: float, crashes: Path) -> Findings:
    """Mutate lines until a time has come."""
    findings = Findings()
    while time.monotonic() < until:
        row = draw.choice(seeds)
        raw = line_of(mutated_value(draw, row) if draw.random() < 0.6 else row, draw)
        raw = mutated_bytes(draw, raw) if draw.random() < 0.6 else raw
        findings.executions["line"] += 1
        try:
            findings.outcomes[f"line: {check_row(raw)}"] += 1
        except Exception:  # noqa: BLE001 - any of them is what is looked for
            keep(findings, crashes, "line", raw, traceback.format_exc())
    return findings


def search_files(draw: random.Random, seeds: list[Any], until: float, crashes: Path) -> Findings:
    """Mutate files until a time has come; a file that takes too long is a finding too."""
    findings = Findings()
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (crashes / "current").write_text(made)
        while time.monotonic() < until:
            findings.executions["file"] += 1
            signal.alarm(LONGEST_S)
            try:
                path, outcome = one_file(draw, seeds, folder)
                path.unlink()
                findings.outcomes[outcome] += 1
            except Exception:  # noqa: BLE001 - any of them is what is looked for
                for path in folder.iterdir():
                    keep(findings, crashes, path.name, path.read_bytes(), traceback.format_exc())
                    path.unlink()
            signal.alarm(0)
    return findings


def _too_long(*_: object) -> None:
    raise TimeoutError(f"reading took more than {LONGEST_S} s")


def keep(findings: Findings, crashes: Path, name: str, raw: bytes, error: str) -> None:
    """Write an input that broke the contract, and how."""
    last = error.strip().splitlines()[-1][:200]
    findings.crashes.append(f"{name}: {last}")
    if len(findings.crashes) <= 50:
        number = len(list(crashes.glob("crash-*-error.txt")))
        (crashes / f"crash-{number:03d}-{name}").write_bytes(raw)
        (crashes / f"crash-{number:03d}-error.txt").write_text(error)


def _files_process(seed: int, seconds: float, crashes: str, sender: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    until = time.monotonic() + seconds
    sender.send(search_files(random.Random(seed), seed_rows(), until, Path(crashes)))


def search_files_apart(seed: int, seconds: float, crashes: Path) -> Findings:
    """Search files in processes of their own; one that dies leaves its input and is followed."""
    total, until = Findings(), time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    while (left := until - time.monotonic()) > 0.5:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (seed, left, str(crashes), sender)
        worker = context.Process(target=_files_process, args=arguments)
        worker.start()
        sender.close()
        try:
            found = receiver.recv()
        except EOFError:
            found = None
        worker.join()
        if found is not None:
            total.executions += found.executions
            total.outcomes += found.outcomes
            total.crashes += found.crashes
            break
        seed += 1_000_003
        for path in Path((crashes / "current").read_text()).iterdir():
            keep(total, crashes, path.name, path.read_bytes(), f"died: {worker.exitcode}")
    return total


def main() -> int:
    """Search for some time; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"))
    options = parser.parse_args()
    options.crashes.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    lines = search_rows(
        random.Random(options.seed), seed_rows(), start + options.seconds / 2, options.crashes
    )
    files = search_files_apart(options.seed, options.seconds / 2, options.crashes)
    for name, count in sorted((lines.outcomes + files.outcomes).items(), key=lambda kv: -kv[1])[
        :40
    ]:
        print(f"{count:10,} {name}")
    crashes = lines.crashes + files.crashes
    print(
        f"{lines.executions['line']:,} lines and {files.executions['file']:,} files in "
        f"{time.monotonic() - start:.0f} s, seed {options.seed}: {len(crashes)} finding(s)"
    )
    for found, count in Counter(crashes).most_common(20):
        print(f"{count:6,} {found}")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
