"""The command line: reads arguments, calls one function, prints what it returns.

This is the only place that prints. What is heavy is imported by the command that needs it.

Exit codes: 0 done, 1 the run failed, 2 the config or the input is wrong, 130 interrupted, 143
terminated.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixup import __version__, errors
from mixup.errors import ConfigError, MixupError, StalledError
from mixup.interrupts import Terminated, raise_on_sigterm

if TYPE_CHECKING:
    from mixup.config import Section
    from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. An unexpected exception passes through with its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # an ASCII terminal is no reason to fail
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    _take_overrides(parser, options, rest)
    raise_on_sigterm()
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        ended = "terminated" if isinstance(error, Terminated) else "interrupted"
        _complain(f"{ended}; what was done is committed, and the same command goes on from there")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        found = explained(error)
        if found is None:
            raise
        if getattr(options, "verbose", False):
            traceback.print_exception(error)
        _complain(str(found))
        if isinstance(found, StalledError) and found.details:
            print("the last lines of those at work:", found.details, sep="\n", file=sys.stderr)
        return WRONG_INPUT if isinstance(found, ConfigError) else FAILED
    return 0


def explained(error: BaseException) -> MixupError | None:
    """The failure that mixup explains, as it was raised: here, or in a Ray task; None for others.

    Ray hands over a task's exception inside its own, whose text is a traceback and whose ``cause``
    is the original. Ray Data puts one more around it in the worker, and an actor that dies while it
    is made has no cause: there the traceback is all that arrives.
    """
    step: BaseException | None = error
    while step is not None:
        cause = getattr(step, "cause", None)
        if isinstance(step, MixupError) and not isinstance(cause, BaseException):
            return step
        step = cause if isinstance(cause, BaseException) else step.__cause__
    return _named_in(str(error)) if type(error).__module__.startswith("ray.") else None


def _named_in(trace: str) -> MixupError | None:
    """The last of mixup's own failures that the text of a traceback names."""
    found = re.findall(r"^(?:\x1b\[\d*m)*mixup\.errors\.(\w+): (.+)$", trace, re.MULTILINE)
    if not found:
        return None
    name, message = found[-1]
    return getattr(errors, name, MixupError)(message)


def _complain(message: str) -> None:
    print("mixup:", " ".join(message.split()), file=sys.stderr)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(document: Any) -> None:
    print(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON data with null in place of NaN and infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Parser(argparse.ArgumentParser):
    """A command's parser; a job's help ends with every key of its config."""

    config_of: Callable[[], type[Section]] | None = None

    def format_help(self) -> str:
        """The help, and below it the config's keys where the command is a job."""
        if self.config_of is None:
            return super().format_help()
        from mixup.config_file import describe
        from mixup.operations.text import config_lines

        return "\n".join([super().format_help(), *config_lines(describe(self.config_of())), ""])


class _PrintSchema(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        if isinstance(parser, _Parser) and parser.config_of is not None:
            _print_json(parser.config_of().model_json_schema())
        parser.exit()


def _refresh_config() -> type[Section]:
    from mixup.refresh_config import RefreshConfig

    return RefreshConfig


def _mixture_config() -> type[Section]:
    from mixup.mixture_config import MixtureConfig

    return MixtureConfig


def _reference_config() -> type[Section]:
    from mixup.reference_config import ReferenceConfig

    return ReferenceConfig


def _sft_config() -> type[Section]:
    from mixup.training_config import SftConfig

    return SftConfig


def _grpo_config() -> type[Section]:
    from mixup.grpo_config import GrpoConfig

    return GrpoConfig


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mixup",
        description="Distills a pool of mixed-quality instruction data into a small dataset that "
        "trains better.",
        epilog="`mixup COMMAND --help` says more. Exit codes: 0 done, 1 the run failed, 2 the "
        "config or the input is wrong, 130 interrupted, 143 terminated.",
    )
    parser.add_argument("--version", action="version", version=f"mixup {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_jobs(commands)
    _add_operations(commands)
    return parser


def _add_jobs(commands: Any) -> None:
    _add_job(
        commands,
        "refresh",
        "make or renew a released dataset from a pool",
        "Makes a released dataset from a pool, or renews it: only what is missing is computed, so "
        "the same command resumes a run that was stopped.",
        "jobs/demo.yaml",
        _refresh_config,
        _refresh,
    )
    _add_job(
        commands,
        "build-mixture",
        "make the distiller's training set from raw text and a rated pool",
        "Makes pairs of low-quality variants and a high-quality target from raw text and from the "
        "rated rows of a pool. Only what is missing is computed, so the same command resumes a run "
        "that was stopped.",
        "jobs/mixture.yaml",
        _mixture_config,
        _build_mixture,
    )
    _add_job(
        commands,
        "build-reference",
        "make the rated library that the quality reward reads",
        "Makes a library of rated rows, with T and p of each task type, from rated files or from "
        "what was rated for a mixture. `rate.library` of a refresh and `library.paths` of "
        "train-grpo take it by path. Only what is missing is computed, so the same command resumes "
        "a run that was stopped.",
        "jobs/reference.yaml",
        _reference_config,
        _build_reference,
    )
    _add_job(
        commands,
        "train-sft",
        "fine-tune a model on MIXTURE, a release or other examples",
        "Fine-tunes a base model on examples: the distiller on MIXTURE, or any model on a release. "
        "The same command goes on from the last checkpoint of a run that was stopped, and has "
        "nothing to do once the model is there.",
        "jobs/sft.yaml",
        _sft_config,
        _train_sft,
    )
    _add_job(
        commands,
        "train-grpo",
        "train the distiller by the rewards of its own answers",
        "Trains a distiller by GRPO: engines answer the prompts of MIXTURE, reward actors score "
        "the answers, and workers learn from them. The same command goes on from the last "
        "checkpoint of a run that was stopped, and has nothing to do once the model is there.",
        "jobs/grpo.yaml",
        _grpo_config,
        _train_grpo,
    )


def _add_job(
    commands: Any,
    name: str,
    upshot: str,
    description: str,
    example: str,
    config_of: Callable[[], type[Section]],
    run: Callable[[argparse.Namespace], None],
) -> None:
    job = commands.add_parser(name, help=upshot, description=description)
    job.config_of = config_of
    job.add_argument("config", metavar="CONFIG", help=f"a YAML file, such as {example}")
    job.add_argument(
        "overrides",
        metavar="section.key=value",
        nargs="*",
        help="replaces a value of the file; values are YAML: 'ingest.paths=[\"pool/*.parquet\"]'",
    )
    job.add_argument(
        "--schema", action=_PrintSchema, nargs=0, help="print the config's JSON Schema and exit"
    )
    loudness = job.add_mutually_exclusive_group()
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="log more, and show tracebacks"
    )
    loudness.add_argument("-q", "--quiet", action="store_true", help="log warnings only")
    job.set_defaults(run=run)


def _add_operations(commands: Any) -> None:
    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:
        command = commands.add_parser(name, help=text[0].lower() + text[1:-1], description=text)
        command.add_argument("workspace", metavar="WORKSPACE", help="a folder or object-store URL")
        command.set_defaults(run=run)
        return command

    status = add(
        "status", _status, "Show what a workspace holds, who writes to it and its release."
    )
    trace = add("trace", _trace, "Follow a record, cluster, sample, pair or release row both ways.")
    trace.add_argument(
        "key",
        metavar="KEY",
        help="its key, or at least 6 leading characters; or a place of an input file, such as "
        "pool/file.jsonl:12 (line from 1) or pool/file.parquet:12 (row from 0)",
    )
    for command in (status, trace):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    report = add(
        "report", _report, "Print where the report of the current release, or mixture, lies."
    )
    report.add_argument("--output", metavar="FILE", help="draw the report anew, into this file")


def _take_overrides(
    parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]
) -> None:
    """Overrides that stand behind an option, which argparse leaves over."""
    if not rest:
        return
    if not hasattr(options, "overrides") or any(word.startswith("-") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides.extend(rest)


def _refresh(options: argparse.Namespace) -> None:
    _start_logging(verbose=options.verbose, quiet=options.quiet)
    from mixup.config_file import load_config
    from mixup.refresh_config import RefreshConfig

    config = load_config(RefreshConfig, options.config, options.overrides)
    from mixup.operations.text import refresh_lines
    from mixup.pipelines.refresh import refresh

    done = refresh(config)
    _print(refresh_lines(done.release, done.manifest, is_new=done.is_new, seconds=done.seconds))


def _build_mixture(options: argparse.Namespace) -> None:
    _start_logging(verbose=options.verbose, quiet=options.quiet)
    from mixup.config_file import load_config
    from mixup.mixture_config import MixtureConfig

    config = load_config(MixtureConfig, options.config, options.overrides)
    from mixup.operations.mixture_text import mixture_lines
    from mixup.pipelines.build_mixture import build_mixture

    done = build_mixture(config)
    _print(mixture_lines(done.mixture, done.manifest, is_new=done.is_new, seconds=done.seconds))


def _build_reference(options: argparse.Namespace) -> None:
    _start_logging(verbose=options.verbose, quiet=options.quiet)
    from mixup.config_file import load_config
    from mixup.reference_config import ReferenceConfig

    config = load_config(ReferenceConfig, options.config, options.overrides)
    from mixup.operations.reference_text import reference_lines
    from mixup.pipelines.build_reference import build_reference

    done = build_reference(config)
    _print(reference_lines(done.library, done.manifest, is_new=done.is_new, seconds=done.seconds))


def _train_sft(options: argparse.Namespace) -> None:
    _start_logging(verbose=options.verbose, quiet=options.quiet)
    from mixup.config_file import load_config
    from mixup.training_config import SftConfig

    config = load_config(SftConfig, options.config, options.overrides)
    from mixup.operations.training_text import training_lines
    from mixup.pipelines.train_sft import train_sft

    done = train_sft(config)
    _print(training_lines(done.model, done.description, is_new=done.is_new, seconds=done.seconds))


def _train_grpo(options: argparse.Namespace) -> None:
    _start_logging(verbose=options.verbose, quiet=options.quiet)
    from mixup.config_file import load_config
    from mixup.grpo_config import GrpoConfig

    config = load_config(GrpoConfig, options.config, options.overrides)
    from mixup.operations.training_text import grpo_lines
    from mixup.pipelines.train_grpo import train_grpo

    done = train_grpo(config)
    _print(grpo_lines(done.model, done.description, is_new=done.is_new, seconds=done.seconds))


def _status(options: argparse.Namespace) -> None:
    from mixup.operations.status import status
    from mixup.operations.status_text import status_lines

    found = status(_workspace(options.workspace))
    if options.json:
        _print_json(found.to_json())
    else:
        _print(status_lines(found, color=_shows_color()))


def _shows_color() -> bool:
    """Whether stdout is a terminal that shows colors, and nobody asked for none (NO_COLOR)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def _trace(options: argparse.Namespace) -> None:
    from mixup.operations.trace import trace
    from mixup.operations.trace_text import trace_lines

    found = trace(_workspace(options.workspace), options.key)
    if options.json:
        _print_json(found)
    else:
        _print(trace_lines(found))


def _report(options: argparse.Namespace) -> None:
    from mixup.operations.report import draw_report, report_location

    workspace = _workspace(options.workspace)
    if options.output is None:
        print(report_location(workspace))
        return
    page = draw_report(workspace)
    try:
        Path(options.output).write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot write the report to {options.output}: {error}") from error
    print(options.output)


def _workspace(location: str) -> Workspace:
    from mixup.workspace import open_workspace

    try:
        return open_workspace(location)
    except (OSError, ValueError) as error:
        if isinstance(error, MixupError):
            raise
        raise ConfigError(f"{location} cannot be read as a workspace: {error}") from error


class _Line(logging.Formatter):
    """One line per event: the time and the message, on a terminal above a progress bar."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a cause's traceback below it."""
        text = " ".join(record.getMessage().split())
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        line = f"{self.formatTime(record, '%H:%M:%S')} {mark}{text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Handler(logging.StreamHandler):
    """Writes to stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if not self.stream.isatty():
            super().emit(record)
            return
        from tqdm import tqdm

        tqdm.write(self.format(record), file=self.stream)


def _start_logging(*, verbose: bool, quiet: bool) -> None:
    """Lines on stderr: mixup's events, and of other packages warnings only."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.getLogger("mixup").setLevel(level)
    if not verbose and not sys.warnoptions:
        warnings.simplefilter("ignore")
