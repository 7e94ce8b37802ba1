"""Kills parts of running jobs at random moments and shows what came of it: `make kills`.

Each kill gets a workspace of its own. The job is started, one process of it gets SIGKILL, and where
the run ended the same command is run again until it succeeds. Then the tables and the release must
be those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from completeness import check_complete
from conftest import Job, short, small_pool
from processes import end, members

RERUNS = 3
ATTEMPTS, SOONER = 3, 0.7
WATCH_S = 0.2
# On top of the short form: every stage has several batches and commits, so that it has a middle.
OFTEN = (
    "distill.max_tokens=16",
    "distill.batch_clusters=4",
    "embed.batch_rows=32",
    "commit_interval_s=0.2",
)


_NO_WORKER = re.compile(r"Engine|IDLE|Agent|_StatsActor|_Autoscaling|ActorLocationTracker")


def _is_raylet(name: str) -> bool:
    return "/raylet " in name and "ray::" not in name


def _is_engine(name: str) -> bool:
    return name.startswith("ray::") and "Engine" in name


def _is_worker(name: str) -> bool:
    """A task or actor of the job: neither the engine nor a part of Ray itself."""
    return name.startswith("ray::") and not _NO_WORKER.search(name)


VICTIMS: dict[str, Callable[[str], bool]] = {
    "driver": lambda name: False,  # the process itself
    "worker": _is_worker,
    "engine": _is_engine,
    "raylet": _is_raylet,
}


@dataclass
class Watched:
    """A job that runs, with what it has written so far.

    Attributes:
        process: Its driver.
        started: When it was started, by the monotonic clock.
        lines: Its output.
    """

    process: subprocess.Popen[str]
    started: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError):  # closed by the one who ends the run
            for line in self.process.stdout:
                self.lines.append(line.rstrip())

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    @property
    def stage(self) -> str:
        """The stage that it says it is in."""
        begun = [line for line in self.lines if line.endswith(": started")]
        return begun[-1].split()[-2].rstrip(":") if begun else "start"

    def victims(self, kind: str) -> list[psutil.Process]:
        """The processes of a kind that are there."""
        if kind == "driver":
            return [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        return [other for other, name in members(self.process).items() if VICTIMS[kind](name)]

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None where it still runs when the time is over."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing was done to.

    Attributes:
        job: The job.
        seconds: How long it took.
        seen: Of each kind of victim the first and the last second at which one was there.
    """

    job: Job
    seconds: float
    seen: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Kill:
    """One kill and what came of it.

    Attributes:
        victim: What was killed: its kind.
        name: Its process title.
        stage: The stage at that moment.
        at_s: The seconds from the start of the run.
        did: What the run did.
        reruns: How often the job was run again.
        seconds: From the start of the first run to the end of the last.
        wrong: What is wrong with the outcome; empty if nothing is.
    """

    victim: str
    name: str
    stage: str
    at_s: float
    did: str
    reruns: int
    seconds: float
    wrong: str


def undisturbed(folder: Path) -> Undisturbed:
    """Run the job, on a small pool, to its end and watch which processes are there when."""
    job = Job(folder / "whole", overrides=(*short(), *OFTEN, small_pool(folder)))
    run = Watched(job.start())
    seen: dict[str, tuple[float, float]] = {}
    try:
        while run.process.poll() is None:
            for kind in VICTIMS:
                if run.victims(kind):
                    seen[kind] = (seen.get(kind, (run.seconds, 0.0))[0], run.seconds)
            time.sleep(WATCH_S)
    finally:
        end(run.process)
    assert run.process.returncode == 0, "\n".join(run.lines[-40:])
    assert set(seen) == set(VICTIMS), f"only {sorted(seen)} were seen"
    return Undisturbed(job, run.seconds, seen)


def draw(
    kills: int, seed: int, kinds: Sequence[str] = tuple(VICTIMS)
) -> Iterator[tuple[str, float]]:
    """For each kill a victim, all kinds equally often, and a moment as a share of its lifetime."""
    chance = random.Random(seed)
    victims: list[str] = []
    while len(victims) < kills:
        turn = list(kinds)
        chance.shuffle(turn)
        victims += turn
    for victim in victims[:kills]:
        yield victim, chance.random()


def kill_once(job: Job, whole: Undisturbed, victim: str, share: float, seed: int) -> Kill:
    """Start a job, kill one process of it, run it again until it succeeds, and judge the end."""
    first, last = whole.seen[victim]
    limit_s = 3 * whole.seconds + 120
    run = Watched(job.start())
    try:
        name = _kill(run, victim, first + share * (last - first), seed)
        stage, at_s = run.stage, run.seconds
        code = run.wait(limit_s)
        did = _did(run, code, run.seconds - at_s)
        if code is None:
            end(run.process)
        # What is left of a killed driver's processes ends by itself, beside the next run.
        reruns, last_code = _rerun(job, code, limit_s)
    finally:
        end(run.process)
    if name is None:
        wrong = "the run ended before it could be killed"
    elif code is None:
        wrong = "the run did not end by itself"
    elif last_code != 0:
        wrong = f"exit {last_code} after {reruns} reruns"
    else:
        wrong = _difference(job, whole.job)
    return Kill(victim, name or "", stage, at_s, did, reruns, run.seconds, wrong)


def _did(run: Watched, code: int | None, after_s: float) -> str:
    """What a run did after the kill."""
    if code == 0:
        return "survived"
    if code is None:
        return f"hung for {after_s:.0f} s"
    said = [line for line in run.lines if line.strip()]
    last = f": {said[-1][:160]}" if code > 0 and said else ""
    return f"exit {code} after {after_s:.0f} s{last}"


def _kill(run: Watched, victim: str, at_s: float, seed: int) -> str | None:
    """Kill at a moment, or as soon after it as there is such a process; its title."""
    chance = random.Random(seed)
    while run.process.poll() is None:
        found = run.victims(victim) if run.seconds >= at_s else []
        chance.shuffle(found)
        for process in found:
            try:
                title = " ".join(process.cmdline()) or process.name()
                process.kill()
            except psutil.NoSuchProcess:
                continue
            return title.split(" --")[0].split("/")[-1].strip()[:60]
        time.sleep(WATCH_S)
    return None


def _rerun(job: Job, code: int | None, limit_s: float) -> tuple[int, int | None]:
    """Run again until a run succeeds; how often, and the last exit code."""
    reruns = 0
    while code != 0 and reruns < RERUNS:
        run = Watched(job.start())
        try:
            code = run.wait(limit_s)
        finally:
            end(run.process)
        reruns += 1
    return reruns, code


def _difference(job: Job, whole: Job) -> str:
    """What a workspace holds otherwise than the undisturbed one; empty if nothing."""
    try:
        check_complete(job, whole)
    except AssertionError as error:
        return str(error).splitlines()[0]
    return ""


def kill_table(
    folder: Path,
    whole: Undisturbed,
    kills: int,
    seed: int,
    show: Callable[[str], object],
    kinds: Sequence[str] = tuple(VICTIMS),
) -> list[Kill]:
    """Kill the job that was once left alone so many times, showing a line for each."""
    show(f"undisturbed: {whole.seconds:.0f} s; seed {seed}")
    show(f"{'#':>3}  {'victim':<8}{'moment':<20}{'reruns':>6}{'seconds':>9}  outcome; the run")
    done = []
    for number, (victim, share) in enumerate(draw(kills, seed, kinds), 1):
        kill = None
        for attempt in range(ATTEMPTS):  # a run that was faster ended before its victim was there
            job = Job(folder / f"{number}-{attempt}", overrides=whole.job.overrides)
            kill = kill_once(job, whole, victim, share * SOONER**attempt, seed + number)
            if kill.name:
                break
        assert kill is not None
        done.append(kill)
        show(
            f"{number:>3}  {victim:<8}{f'{kill.stage}, {kill.at_s:.1f} s':<20}{kill.reruns:>6}"
            f"{kill.seconds:>9.0f}  {kill.wrong or 'complete'}; {kill.did} [{kill.name}]"
        )
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if an outcome is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mixup-kills-") as folder:
        whole = undisturbed(Path(folder))
        done = kill_table(
            Path(folder), whole, asked.kills, asked.seed, lambda line: print(line, flush=True)
        )
    wrong = sum(bool(kill.wrong) for kill in done)
    mild = [kill for kill in done if kill.victim in ("worker", "engine")]
    survived = sum(kill.did == "survived" for kill in mild)
    print(
        f"{len(done)} kills, {wrong} wrong outcomes; of {len(mild)} runs that lost a worker or an"
    )
    print(f"engine, {survived} went on by themselves")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
