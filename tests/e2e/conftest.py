"""Runs jobs as a user does: as subprocesses, in workspaces of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from mixup.models.folders import model_folder

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "jobs" / "demo.yaml"
POOL_ROWS = 150

_MADE = tempfile.TemporaryDirectory(prefix="mixup-e2e-")


@cache
def shallow_distiller() -> Path:
    """The bundled model with the first two of its thirty layers, made when it is first asked for.

    The same engine serves it by the same tokens. What it says is of no worth, as is what the whole
    model says in so few tokens; but it reads all prompts in seconds, which that does in minutes.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole, folder = model_folder("bundled:smollm2"), Path(_MADE.name) / "distiller"
    model = AutoModelForCausalLM.from_pretrained(whole, dtype="float32")
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    return folder


def short() -> tuple[str, ...]:
    """Every cluster is sampled once and shortly: enough to walk the whole job."""
    return (
        f"distill.model={shallow_distiller()}",
        "distill.max_clusters=null",
        "distill.samples=1",
        "distill.structured=none",
        "distill.max_tokens=24",
        "distill.batch_clusters=16",
        "commit_interval_s=0.5",
    )


def environment(**more: str) -> dict[str, str]:
    """The environment of a job: offline, and without a cluster of somebody else."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**kept, **offline, **more}


def small_pool(folder: Path) -> str:
    """The override that makes a fifth of the bundled sample the pool."""
    source = ROOT / "mixup" / "sample" / "pool" / "notes.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "pool.jsonl").write_text("".join(lines[:POOL_ROWS]), encoding="utf-8")
    return f'ingest.paths=["{folder / "pool.jsonl"}"]'


@dataclass
class Job:
    """A refresh in a workspace, started as often as a test likes."""

    workspace: Path
    config: Path = DEMO
    overrides: tuple[str, ...] = field(default_factory=short)
    log: str = field(default="", init=False)

    def command(self, *more: str) -> list[str]:
        place = f"workspace={self.workspace}"
        refresh = [sys.executable, "-m", "mixup", "refresh", str(self.config)]
        return [*refresh, place, *self.overrides, *more]

    def run(self, *more: str, timeout_s: float = 580, expect: int = 0, **env: str) -> str:
        """Run to the end; the output of stdout and stderr together."""
        done = subprocess.run(
            self.command(*more),
            env=environment(**env),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == expect, done.stdout[-6000:]
        return done.stdout

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start in a process group of its own."""
        return subprocess.Popen(
            self.command(*more),
            env=environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def tables(self) -> list[str]:
        """The names of the tables that there are."""
        return sorted(path.parent.name for path in self.workspace.glob("tables/*/_delta_log"))

    def table(self, name: str) -> pa.Table:
        """A table as any Delta reader sees it."""
        return DeltaTable(str(self.workspace / "tables" / name)).to_pyarrow_table()

    def rows(self, name: str) -> int:
        """The rows of a table; 0 where it does not exist yet."""
        folder = self.workspace / "tables" / name
        if not (folder / "_delta_log").exists():
            return 0
        return (
            DeltaTable(str(folder))
            .to_pyarrow_table(columns=["uid"] if name in _BY_UID else None)
            .num_rows
        )

    def release(self) -> Path:
        """The folder of the current release."""
        pointer = json.loads((self.workspace / "releases" / "current.json").read_text())
        return self.workspace / "releases" / pointer["release"]

    def manifest(self) -> dict:
        """The manifest of the current release."""
        return json.loads((self.release() / "manifest.json").read_text())

    def stage(self, name: str) -> dict | None:
        """What the manifest says of a stage; None if it had nothing to do."""
        found = [stage for stage in self.manifest()["stages"] if stage["stage"] == name]
        return found[0] if found else None


_BY_UID = ("embeddings", "records", "ratings", "curation")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The demo job, run once in a short form, whose engine has work left when rewards begin."""
    longer = ("distill.batch_clusters=4", "distill.max_tokens=64")
    job = Job(tmp_path_factory.mktemp("demo") / "workspace", overrides=(*short(), *longer))
    job.log = job.run()
    return job
