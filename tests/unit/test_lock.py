import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixup import lock
from mixup.errors import TableError
from mixup.lock import LEASE_SECONDS, Lease, acquire, ensure_held, holder_of
from mixup.workspace import Workspace, ensure_workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return ensure_workspace(str(tmp_path / "w"), buckets=1)


@pytest.fixture
def elsewhere(monkeypatch, workspace):
    """Takes the lock as another machine would, which then stops beating."""

    def take(run: str, *, host: str, boot: str) -> Lease:
        with monkeypatch.context() as other:
            other.setattr("mixup.lock.socket.gethostname", lambda: host)
            other.setattr(lock, "_boot_id", lambda: boot)
            lease = acquire(workspace, run)
        stop_beating(lease)
        return lease

    return take


def stop_beating(lease: Lease) -> None:
    lease._stop.set()
    lease._thread.join()


def beat_at(workspace: Workspace, token: int, at: float) -> None:
    workspace.write_json(f"runs/heartbeats/{token}.json", {"at": at})


def test_a_lock_is_held_until_it_is_released(workspace):
    assert holder_of(workspace) is None
    with acquire(workspace, "one"):
        held = holder_of(workspace)
        assert held is not None
        assert (held.run, held.pid) == ("one", os.getpid())
        assert held.is_on_this_boot
        assert held.is_running
    assert holder_of(workspace) is None


def test_it_is_released_when_the_run_fails(workspace):
    with pytest.raises(ZeroDivisionError), acquire(workspace, "one"):
        raise ZeroDivisionError
    assert holder_of(workspace) is None


def test_tokens_grow(workspace):
    tokens = []
    for run in range(4):
        with acquire(workspace, f"run {run}") as lease:
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


def test_a_second_run_is_told_who_holds_it_and_since_when(workspace):
    with acquire(workspace, "night-1"):
        year = time.strftime("%Y-")
        with pytest.raises(TableError, match="is locked by run night-1") as raised:
            acquire(workspace, "night-2")
        assert f"process {os.getpid()} on" in str(raised.value)
        assert f"since {year}" in str(raised.value)


def test_a_heartbeat_is_written_at_once(workspace):
    with acquire(workspace, "one") as lease:
        deadline = time.monotonic() + 5
        path = f"runs/heartbeats/{lease.token}.json"
        while not workspace.exists(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert abs(workspace.read_json(path)["at"] - time.time()) < 5


_HOLDER = """
import sys, time
from mixup.lock import acquire
from mixup.workspace import open_workspace
lease = acquire(open_workspace(sys.argv[1]), sys.argv[2])
print(lease.token, flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_process(workspace):
    started = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, workspace.uri, "other"], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    token = int(started.stdout.readline())
    yield started, token
    started.kill()
    started.wait()
    started.stdout.close()


def test_another_process_is_respected_while_it_lives_and_followed_when_killed(
    workspace, other_process
):
    process, token = other_process
    with pytest.raises(TableError, match=f"run other .process {process.pid} on"):
        acquire(workspace, "mine")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with acquire(workspace, "mine") as lease:
        assert lease.token > token
        held = holder_of(workspace)
        assert held is not None
        assert held.run == "mine"


def test_a_process_with_the_holders_number_is_not_the_holder(workspace, monkeypatch):
    lease = acquire(workspace, "one")
    stop_beating(lease)
    started = lock.psutil.Process().create_time()

    class Later:
        def __init__(self, pid: int | None = None) -> None:
            self.pid = pid

        def create_time(self) -> float:
            return started + 100.0

    monkeypatch.setattr("mixup.lock.psutil.Process", Later)
    with acquire(workspace, "two") as second:
        assert second.token > lease.token


def test_another_machine_with_a_fresh_heartbeat_is_respected(workspace, elsewhere):
    lease = elsewhere("far", host="far-away", boot="b1")
    beat_at(workspace, lease.token, time.time() - LEASE_SECONDS / 2)
    with pytest.raises(TableError, match="run far .process .* on far-away"):
        acquire(workspace, "near")


def test_another_machine_without_a_heartbeat_has_the_time_since_it_took_the_lock(
    workspace, elsewhere
):
    lease = elsewhere("far", host="far-away", boot="b1")
    os.remove(workspace.path(f"runs/heartbeats/{lease.token}.json"))
    with pytest.raises(TableError, match="run far"):
        acquire(workspace, "near")


def test_another_machine_with_a_stale_heartbeat_is_followed(workspace, elsewhere):
    lease = elsewhere("far", host="far-away", boot="b1")
    beat_at(workspace, lease.token, time.time() - LEASE_SECONDS - 1)
    with acquire(workspace, "near") as mine:
        assert mine.token > lease.token


def test_this_machine_restarted_is_followed_at_once(workspace, elsewhere):
    lease = elsewhere("before", host=lock.socket.gethostname(), boot="an earlier boot")
    beat_at(workspace, lease.token, time.time())
    with acquire(workspace, "after") as mine:
        assert mine.token > lease.token


def test_releasing_a_lock_that_was_taken_over_leaves_it_to_the_new_holder(workspace, elsewhere):
    lease = elsewhere("slow", host="far-away", boot="b1")
    beat_at(workspace, lease.token, 0.0)
    with acquire(workspace, "quick"):
        lease.release()
        held = holder_of(workspace)
        assert held is not None
        assert held.run == "quick"


def test_a_takeover_in_the_moment_of_release_is_no_error(workspace, monkeypatch, caplog):
    lease = acquire(workspace, "slow")
    stop_beating(lease)
    table, current = lock._current(workspace)
    lock._replace(workspace, table, lock.Holder.this_process("quick"))
    stale = lock.DeltaTable(lock._lock_uri(workspace), version=table.version())
    with monkeypatch.context() as patched:
        patched.setattr(lock, "_current", lambda _: (stale, current))
        lease.release()
    assert "taken over while it was released" in caplog.text
    held = holder_of(workspace)
    assert held is not None
    assert held.run == "quick"


def take_all_at_once(workspace: Workspace, takers: int) -> list[Lease | TableError]:
    barrier = threading.Barrier(takers)

    def take(number: int) -> Lease | TableError:
        barrier.wait()
        try:
            return acquire(workspace, f"taker {number}")
        except TableError as error:
            return error

    with ThreadPoolExecutor(takers) as pool:
        return list(pool.map(take, range(takers)))


@pytest.mark.parametrize("attempt", range(3))
def test_of_several_takers_of_a_new_workspace_exactly_one_wins(workspace, attempt):
    outcomes = take_all_at_once(workspace, 6)
    (winner,) = [found for found in outcomes if isinstance(found, Lease)]
    held = holder_of(workspace)
    assert held is not None
    assert held == winner._holder
    winner.release()


@pytest.mark.parametrize("attempt", range(3))
def test_of_several_takers_of_a_dead_holders_lock_exactly_one_wins(workspace, elsewhere, attempt):
    dead = elsewhere("dead", host="far-away", boot="b1")
    beat_at(workspace, dead.token, 0.0)
    outcomes = take_all_at_once(workspace, 6)
    (winner,) = [found for found in outcomes if isinstance(found, Lease)]
    assert winner.token > dead.token
    winner.release()


def test_a_lock_table_that_a_crash_left_empty_is_free(workspace):
    lock._ensure_lock_table(workspace)
    assert holder_of(workspace) is None
    with acquire(workspace, "one") as lease:
        assert lease.token == 1


def test_only_the_present_holders_file_is_kept(workspace):
    for run in range(3):
        acquire(workspace, str(run)).release()
    files = [name for name in workspace.list("lock") if name.endswith(".parquet")]
    assert len(files) == 1
    log = workspace.list("lock/_delta_log")
    assert len([name for name in log if name.endswith(".json")]) == 7
    last = max(name for name in log if name.endswith(".json"))
    with open(workspace.path(f"lock/_delta_log/{last}")) as lines:
        assert any("add" in json.loads(line) for line in lines)


def test_a_run_that_was_taken_over_may_not_publish(workspace):
    lease = acquire(workspace, "first")
    ensure_held(workspace, lease.token)
    lease.release()
    with pytest.raises(TableError, match="passed to nobody"):
        ensure_held(workspace, lease.token)
    with acquire(workspace, "second"), pytest.raises(TableError, match="passed to second"):
        ensure_held(workspace, lease.token)


def die(lease: Lease, monkeypatch) -> None:
    """Stop as a killed run does: the lock is not given back and the process is gone."""
    stop_beating(lease)
    monkeypatch.setattr(lock.Holder, "is_running", property(lambda holder: False))


def test_a_silent_holder_of_another_machine_leaves_doubt_until_a_run_ends_well(
    workspace, elsewhere, monkeypatch
):
    silent = elsewhere("silent", host="far-away", boot="b1")
    beat_at(workspace, silent.token, 0.0)
    assert not silent.in_doubt
    heir = acquire(workspace, "heir")
    assert heir.in_doubt
    die(heir, monkeypatch)
    second = acquire(workspace, "second heir")
    assert second.in_doubt
    second.release()
    with acquire(workspace, "next night") as lease:
        assert not lease.in_doubt
        assert lease.since == pytest.approx(time.time(), abs=60)


def test_a_dead_process_of_this_machine_leaves_no_doubt(workspace, monkeypatch):
    lease = acquire(workspace, "one")
    die(lease, monkeypatch)
    with acquire(workspace, "two") as taken:
        assert not taken.in_doubt
