"""The refresh job, submitted to a cluster of one machine as the README says."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, Job, environment, short, small_pool
from processes import end

from mixup.models.bundled import cache_folder

RAY = str(Path(sys.executable).with_name("ray"))
REFRESH = ("python", "jobs/refresh.py", "jobs/demo.yaml")

# What a job and its workers see of the folder that was uploaded.
PROBE = """
import json, os, ray

def place():
    import mixup
    return mixup.__file__

ray.init(log_to_driver=False)
files = [os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names]
found = {
    "driver": place(),
    "worker": ray.get(ray.remote(num_cpus=0.1)(place).remote()),
    "entries": sorted(os.listdir(".")),
    "bytes": sum(map(os.path.getsize, files)),
}
print("PROBE", json.dumps(found))
"""


@dataclass(frozen=True)
class Head:
    """A cluster of one machine.

    Attributes:
        address: Where jobs are submitted.
        env: The environment of its commands: a home folder with a token of its own.
    """

    address: str
    env: dict[str, str]

    def ray(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a `ray` command from the repository's folder."""
        return subprocess.run(
            [RAY, *words],
            env=self.env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def submit(
        self, *command: str, env_vars: dict[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Submit a job and follow it to its end; the exit code is 0 if it succeeded."""
        place = ["--address", self.address, "--working-dir", "."]
        runtime = ["--runtime-env-json", json.dumps({"env_vars": env_vars})] if env_vars else []
        return self.ray("job", "submit", *place, *runtime, "--", *command, timeout_s=timeout_s)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """`ray start --head`, with a token, in a folder of its own (whose path must be short)."""
    gcs, dashboard, client, agent = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="mixup-") as folder:
        env = environment(
            HOME=folder,
            PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            MIXUP_CACHE=str(cache_folder()),
            RAY_AUTH_MODE="token",
            RAY_USAGE_STATS_ENABLED="0",
            RAY_worker_niceness="0",
        )
        cluster = Head(f"http://127.0.0.1:{dashboard}", env)
        assert cluster.ray("get-auth-token", "--generate").returncode == 0
        assert (Path(folder) / ".ray" / "auth_token").exists()
        command = [
            *(RAY, "start", "--head", "--block", f"--temp-dir={folder}/ray"),
            *(f"--port={gcs}", f"--ray-client-server-port={client}"),
            *("--include-dashboard=true", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={agent}", "--min-worker-port=0"),
            *("--max-worker-port=0", "--num-cpus=2", "--object-store-memory=1000000000"),
        ]
        with (Path(folder) / "start.log").open("w") as log:
            process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, text=True, start_new_session=True
            )
        try:
            wait_for(cluster, process, Path(log.name))
            yield cluster
        finally:
            end(process)


def wait_for(cluster: Head, process: subprocess.Popen[str], log: Path) -> None:
    """Wait until the cluster takes jobs."""
    deadline = time.monotonic() + 90
    while (listed := cluster.ray("job", "list", "--address", cluster.address)).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, listed.stdout
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_submitted_job_makes_a_release(head: Head, tmp_path: Path):
    """A relative workspace lies in MIXUP_ROOT, which the job gets by its runtime environment."""
    job = Job(tmp_path / "nightly")
    overrides = (*short(), small_pool(tmp_path), "distill.max_clusters=16")
    done = head.submit(
        *REFRESH,
        "workspace=nightly",
        *overrides,
        env_vars={"MIXUP_ROOT": str(tmp_path)},
        timeout_s=420,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "succeeded" in done.stdout
    assert (job.release() / "data").is_dir()
    assert job.rows("samples") == 16
    again = head.submit(*REFRESH, f"workspace={job.workspace}", *overrides)
    assert again.returncode == 0, again.stdout
    assert "nothing to do" in again.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_without_the_token_no_job_is_taken(head: Head):
    stranger = Head(head.address, {**head.env, "RAY_AUTH_MODE": "disabled"})
    done = stranger.submit(*REFRESH)
    assert done.returncode != 0
    assert "Unauthorized" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_job_that_fails_says_why(head: Head):
    done = head.submit(*REFRESH, "distill.sampels=3")
    assert done.returncode == 1
    assert "did you mean 'distill.samples'" in done.stdout
    assert "exit code 2" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_import_the_code_that_was_uploaded(head: Head, tmp_path: Path):
    """Git's folder and what .gitignore names stay here."""
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    done = head.submit("python", str(probe))
    assert done.returncode == 0, done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("PROBE "))
    found = json.loads(line.removeprefix("PROBE "))
    assert "runtime_resources" in found["driver"]
    assert found["worker"] == found["driver"]
    assert {"jobs", "mixup"} <= set(found["entries"])
    assert not {".git", ".venv", "workspace"} & set(found["entries"])
    assert found["bytes"] < 20_000_000
