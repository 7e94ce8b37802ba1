"""The library job on Ray: rated files, nothing to do, more rows, a mixture, a refresh."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from made_mixture import rows_of

from mixup.errors import ConfigError
from mixup.mixture_config import MixtureConfig
from mixup.models.bundled import minilm_folder
from mixup.operations.status import status
from mixup.pipelines.build_mixture import build_mixture
from mixup.pipelines.build_reference import build_reference
from mixup.pipelines.refresh_plan import make_plan
from mixup.reference_config import ReferenceConfig
from mixup.refresh_config import RefreshConfig
from mixup.stages.library_folder import library_at, load_library, votes_of
from mixup.workspace import open_workspace

MINILM = {"model": "bundled:minilm", "actor_cpus": 1.0}
TOWNS = ("Ayr", "Oban", "Wick", "Thurso", "Nairn", "Elgin", "Banff", "Crail", "Leith", "Troon")
TRADES = ("fishing", "weaving", "farming", "printing", "mining", "baking", "tanning", "brewing")


def write_rated(path: Path, towns: tuple[str, ...]) -> int:
    """Rows rated by a column: what is said of half of the trades is rated high; the row count."""
    rows = [
        {
            "instruction": f"What did {trade} bring to {town}?",
            "output": f"In {town}, {trade} gave work to {len(town) * 70} people for a century. "
            f"The guild of {trade} built its hall beside the church.",
            "rating": 9 if TRADES.index(trade) % 2 else 5,
        }
        for town in towns
        for trade in TRADES
    ]
    rows.append({"instruction": "What is this?", "output": "Nobody rated it.", "rating": None})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, "broken"]))
    return len(rows)


def config(folder: Path, **changed) -> ReferenceConfig:
    given = {
        "workspace": str(folder / "library"),
        "ingest": {"paths": [str(folder / "a.jsonl")]},
        "embed": MINILM,
        "commit_interval_s": 0.5,
        "fit": {"min_task_rated": 40},
    }
    return ReferenceConfig.model_validate({**given, **changed})


@pytest.mark.usefixtures("ray_cluster")
def test_rated_files_become_a_library_and_only_what_is_new_is_embedded(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mixup")
    rows = write_rated(tmp_path / "a.jsonl", TOWNS[:8])
    done = build_reference(config(tmp_path))
    manifest = done.manifest
    assert done.is_new
    assert manifest["counts"]["rows_in"] == rows
    assert sum(manifest["fates"].values()) == rows
    assert manifest["fates"]["unrated"] == 1
    assert manifest["quarantine"] == {"not_an_object": 1}
    assert manifest["tasks"]["qa"]["own_fit"]
    stages = {stage["stage"]: stage for stage in manifest["stages"]}
    assert list(stages) == ["ingest", "embed", "rate", "library"]
    found = library_at(done.library)
    assert found is not None
    votes = votes_of(load_library(found))
    assert len(votes.ratings_L) == manifest["counts"]["rows"]
    workspace = open_workspace(str(tmp_path / "library"))
    assert status(workspace).to_json()["library"] == done.library

    caplog.clear()
    again = build_reference(config(tmp_path))
    assert (again.is_new, again.library) == (False, done.library)
    assert "nothing to do" in caplog.text

    write_rated(tmp_path / "b.jsonl", TOWNS[8:])
    both = {"paths": [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]}
    more = build_reference(config(tmp_path, ingest=both))
    embedded = next(stage for stage in more.manifest["stages"] if stage["stage"] == "embed")
    assert embedded["rows_in"] == 2 * len(TRADES)
    assert more.manifest["revision"] != done.manifest["revision"]
    # Another fit embeds nothing at all, and the earlier folders stay.
    fitted = build_reference(config(tmp_path, ingest=both, fit={"min_task_rated": 1000}))
    assert {"ingest", "embed", "rate"} == set(fitted.manifest["skipped"])
    assert not fitted.manifest["tasks"]["qa"]["own_fit"]
    assert Path(done.library, "library.parquet").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_what_was_rated_for_a_mixture_becomes_a_library(tmp_path):
    write_rated(tmp_path / "a.jsonl", TOWNS[:8])
    mixture = MixtureConfig.model_validate(
        {
            "workspace": str(tmp_path / "mixture"),
            "ingest": {"paths": [str(tmp_path / "a.jsonl")]},
            "text": {"paths": ["bundled:text"]},
            "embed": MINILM,
            "commit_interval_s": 0.5,
        }
    )
    build_mixture(mixture)
    alone = config(tmp_path, ingest=None, mixture=str(tmp_path / "mixture"))
    done = build_reference(alone)
    held_by = open_workspace(str(tmp_path / "mixture"))
    outcomes = rows_of(held_by, "targets")
    fates = done.manifest["fates"]
    assert sum(fates.values()) == len(outcomes)
    by_rule = [row for row in outcomes if row["rating_source"] == "construction"]
    assert fates["by_construction"] == len(by_rule) > 0
    held_out = {
        row["uid"]
        for row in outcomes
        if row["split"] in ("test", "validation") and row["rating_source"] == "column"
    }
    assert fates["held_out"] == len(held_out) > 0
    library = library_at(done.library)
    assert library is not None
    assert not held_out & set(load_library(library).uids)
    assert [stage["stage"] for stage in done.manifest["stages"]] == ["library"]
    assert not build_reference(alone).is_new

    with pytest.raises(ConfigError, match="the job's own workspace"):
        build_reference(config(tmp_path, ingest=None, workspace=held_by.uri, mixture=held_by.uri))


@pytest.mark.usefixtures("ray_cluster")
def test_a_refresh_plans_with_a_library_by_its_path(tmp_path):
    write_rated(tmp_path / "a.jsonl", TOWNS[:6])
    done = build_reference(config(tmp_path))
    refresh = {
        "workspace": str(tmp_path / "refresh"),
        "ingest": {"paths": [str(tmp_path / "a.jsonl")]},
        "embed": MINILM,
        "distill": {"model": "bundled:smollm2", "context_tokens": 2048},
        "rate": {"type": "reference", "library": [str(tmp_path / "library")]},
    }
    plan = make_plan(RefreshConfig.model_validate(refresh))
    assert plan.library.built is not None
    assert plan.library.built.location == done.library
    assert plan.cells().library == done.manifest["revision"]
    assert not plan.library.files
    wrong = refresh | {"embed": {**MINILM, "model": str(other_encoder(tmp_path))}}
    wrong["embed"]["similarity"] = {
        **{"near_duplicate": 0.95, "cluster_floor": 0.6},
        **{"alignment_low": 0.35, "alignment_high": 0.75},
    }
    with pytest.raises(ConfigError, match="vectors of two encoders cannot be compared"):
        make_plan(RefreshConfig.model_validate(wrong))


def other_encoder(folder: Path) -> Path:
    """The bundled encoder with another file beside its weights: another revision."""
    copy = folder / "encoder"
    shutil.copytree(minilm_folder(), copy)
    (copy / "added.json").write_text("{}")
    return copy
