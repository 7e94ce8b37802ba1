"""The command line: arguments, exit codes, one-line failures, and what it does not import."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mixup.pipelines.refresh
from mixup import __version__, cli
from mixup.commits import Committer, write_by_bucket
from mixup.config_file import describe
from mixup.errors import ConfigError, MixupError, ModelError
from mixup.lock import acquire
from mixup.mixture_config import MixtureConfig
from mixup.records import TABLES
from mixup.refresh_config import RefreshConfig
from mixup.stages.publish import point_to
from mixup.workspace import Workspace, ensure_workspace

ROOT = Path(__file__).parents[2]
CONFIG = "workspace: w\ningest: {paths: [p.jsonl]}\n"


@pytest.fixture(autouse=True)
def _restore_logging():
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = handlers, level
    logging.getLogger("mixup").setLevel(logging.NOTSET)


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """One record and a release."""
    made = ensure_workspace(str(tmp_path / "w"), buckets=1)
    schema = TABLES["records"].file_schema
    row = {"uid": "a" * 32, "task": "qa", "language": None, "turns": [], "tokens": 1}
    with acquire(made, "run") as lease:
        committer = Committer(made, token=lease.token, run="run", tables=["records"])
        committer.add(write_by_bucket(made, "records", pa.Table.from_pylist([row], schema)))
        committer.commit()
    made.write_json("releases/r/manifest.json", {})
    sink = pa.BufferOutputStream()
    lineage = pa.table({name: ["c" * 32] for name in ("id", "kind", "sample", "member")})
    pq.write_table(lineage, sink)
    made.write_bytes("releases/r/lineage.parquet", sink.getvalue().to_pybytes())
    point_to(made, "r", "state")
    return made


def outcome(*, is_new: bool) -> SimpleNamespace:
    counts = {"rows": 2, "distilled": 1, "originals": 1}
    wanted = {"wanted_distilled": 1, "wanted_originals": 1}
    manifest = {"counts": counts | wanted, "fates": {"original": 2}, "stages": [], "skipped": []}
    return SimpleNamespace(release="/w/releases/r", is_new=is_new, manifest=manifest, seconds=1.0)


def running(monkeypatch, result: object) -> list[RefreshConfig]:
    """Replace the pipeline by something that ends at once; the configs it was called with."""
    seen = []

    def refresh(config):
        seen.append(config)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(mixup.pipelines.refresh, "refresh", refresh)
    return seen


def test_help_is_quick_and_light():
    code = (
        "import sys\nfrom mixup.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'ray', 'torch', 'vllm', 'pyarrow', 'deltalake', 'faiss', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "refresh" in done.stdout


def test_operations_load_neither_ray_nor_torch(workspace):
    code = (
        "import sys\nfrom mixup.cli import main\n"
        f"assert main(['status', {workspace.uri!r}]) == 0\n"
        f"assert main(['trace', {workspace.uri!r}, 'aaaaaa']) == 0\n"
        f"assert main(['report', {workspace.uri!r}]) == 0\n"
        "import mixup.pipelines.refresh\n"
        "sys.exit(', '.join({'ray', 'torch', 'vllm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mixup {__version__}\n"


@pytest.mark.parametrize(
    ("job", "config"), [("refresh", RefreshConfig), ("build-mixture", MixtureConfig)]
)
def test_help_of_a_job_lists_every_key(capsys, job, config):
    with pytest.raises(SystemExit):
        cli.main([job, "--help"])
    text = capsys.readouterr().out
    assert all(key in text for key, _, _ in describe(config))


def test_the_schema_is_json(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["refresh", "--schema"])
    assert end.value.code == 0
    assert "ingest" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["refresh"],
        ["refresh", "c", "--nonsense"],
        ["status"],
        ["status", "w", "x"],
    ],
)
def test_wrong_usage_is_2(arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


def test_refresh_takes_overrides_before_and_after_options(config, monkeypatch, capsys):
    seen = running(monkeypatch, outcome(is_new=True))
    assert cli.main(["refresh", config, "seed=7", "-q", "select.size=3"]) == 0
    assert (seen[0].seed, seen[0].select.size) == (7, 3)
    assert capsys.readouterr().out.startswith("release")


def test_nothing_to_do_is_said_and_is_0(config, monkeypatch, capsys):
    running(monkeypatch, outcome(is_new=False))
    assert cli.main(["refresh", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("nothing to do: /w is up to date")
    assert lines[1].split() == ["release", "/w/releases/r"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MixupError("the run\nfailed"), 1),
        (ModelError("no weights"), 1),
        (ConfigError("ingest.paths: nothing"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_are_one_line_each(config, monkeypatch, capsys, error, code):
    running(monkeypatch, error)
    assert cli.main(["refresh", config]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("mixup: ")


def test_verbose_adds_the_traceback(config, monkeypatch, capsys):
    running(monkeypatch, MixupError("failed"))
    assert cli.main(["refresh", config, "-v"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1] == "mixup: failed"


def test_an_unexpected_exception_keeps_its_traceback(config, monkeypatch):
    running(monkeypatch, ZeroDivisionError("division"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["refresh", config])


@pytest.mark.parametrize(
    "arguments",
    [
        ["refresh", "nowhere.yaml"],
        ["status", "nowhere"],
        ["trace", "nowhere", "aaaaaa"],
        ["report", "nowhere"],
        ["status", __file__],
        ["status", "ftp://x/y"],
    ],
)
def test_what_does_not_exist_is_2_in_one_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mixup: ")
    assert list(tmp_path.iterdir()) == []


def test_status_json_is_one_object(workspace, capsys):
    assert cli.main(["status", workspace.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "tables": {"records": {"rows": 1, "version": 1}},
        "release": f"{workspace.uri}/releases/r",
    }


def test_trace_json_and_its_refusals(workspace, capsys):
    assert cli.main(["trace", workspace.uri, "aaaaaa", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "a" * 32
    assert cli.main(["trace", workspace.uri, "bbbbbb"]) == 2
    assert cli.main(["trace", workspace.uri, "aaa"]) == 2


def test_a_report_that_cannot_be_drawn_is_1(workspace, tmp_path, capsys):
    assert cli.main(["report", workspace.uri, "--output", str(tmp_path / "page.html")]) == 1
    assert "digest.json" in capsys.readouterr().err


class RayTaskError(Exception):
    """Ray's exception for a failed task, in form: its text is a traceback, its cause the error."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("Traceback ...")
        self.cause = cause


class RayTaskErrorOfConfig(RayTaskError, ConfigError):
    """The dual class that Ray makes, which is also of the cause's class."""


def test_the_cause_of_a_failed_task_is_what_is_shown(config, monkeypatch, capsys):
    running(monkeypatch, RayTaskErrorOfConfig(ConfigError("rate.library holds 3 rows")))
    assert cli.main(["refresh", config]) == 2
    assert capsys.readouterr().err == "mixup: rate.library holds 3 rows\n"
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = RayTaskError(ModelError("no weights"))
    assert str(cli.explained(RayTaskError(wrapped))) == "no weights"
    assert cli.explained(RayTaskError(KeyError("x"))) is None


class ActorDiedError(Exception):
    """Ray's exception for an actor that died while it was made, in form: a text is all it has."""

    __module__ = "ray.exceptions"


@pytest.mark.parametrize(
    ("last_lines", "shown"),
    [
        ("mixup.errors.ModelError: no weights", "no weights"),
        ("mixup.errors.ConfigError: no rows\n\nThe above\n\nray.E: UDF failed", "no rows"),
        ("KeyError: 'mixup.errors.ModelError: x'", None),
    ],
)
def test_a_cause_that_arrives_as_text_is_read_from_it(last_lines, shown):
    text = f'The actor died\n  File "x.py", line 1, in f\n{last_lines}'
    found = cli.explained(ActorDiedError(text))
    assert (None if found is None else str(found)) == shown
    assert cli.explained(RuntimeError(text)) is None


def test_log_lines_have_a_time_and_no_logger(config, monkeypatch, capsys):
    def refresh(_):
        logging.getLogger("mixup.stages.run").info("embed: %d\nrows", 3)
        logging.getLogger("mixup.stages.run").debug("detail")
        logging.getLogger("faiss.loader").info("chatter")
        logging.getLogger("deltalake").warning("old protocol")
        return outcome(is_new=True)

    monkeypatch.setattr(mixup.pipelines.refresh, "refresh", refresh)
    cli.main(["refresh", config])
    lines = capsys.readouterr().err.splitlines()
    assert [line[8:] for line in lines] == [" embed: 3 rows", " warning: old protocol"]
    assert lines[0][2] == lines[0][5] == ":"
    cli.main(["refresh", config, "--quiet"])
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["refresh.yaml", "demo.yaml"])
def test_job_files_are_valid(name):
    from mixup.config_file import load_config

    assert load_config(RefreshConfig, ROOT / "jobs" / name).distill.engine_gpus == 0


@pytest.mark.parametrize("name", ["refresh.py", "mixture.py"])
def test_the_job_script_is_the_same_command(name):
    script = [sys.executable, str(ROOT / "jobs" / name)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [*script, "nowhere.yaml"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mixup: no config at nowhere.yaml")


def test_a_finished_mixture_is_summed_up(monkeypatch, capsys, tmp_path):
    import mixup.pipelines.build_mixture

    (tmp_path / "job.yaml").write_text("workspace: w\ntext: {paths: [a.jsonl]}\n")
    splits = {"sft": 1, "rl": 2, "validation": 0, "test": 1}
    manifest = {
        "counts": {"pairs": 4, "by_task": {"qa": splits}, "rows": 9, "articles": 3},
        "fates": {"near_duplicate": 5, "paired": 4},
        "made": {"qa": {"made": 6, "no_topic": 2}},
        "stages": [{"stage": "mix", "seconds": 2.0}],
        "skipped": ["segment"],
    }
    outcome = SimpleNamespace(mixture="/w/mixtures/m", is_new=True, manifest=manifest, seconds=3.0)
    monkeypatch.setattr(mixup.pipelines.build_mixture, "build_mixture", lambda config: outcome)
    assert cli.main(["build-mixture", str(tmp_path / "job.yaml")]) == 0
    text = capsys.readouterr().out
    for said in ("9 rows and items came in", "6 of 8", "Paired", "/w/mixtures/m/report.html"):
        assert said in text
    outcome.is_new = False
    assert cli.main(["build-mixture", str(tmp_path / "job.yaml")]) == 0
    assert "nothing to do: /w is up to date" in capsys.readouterr().out
