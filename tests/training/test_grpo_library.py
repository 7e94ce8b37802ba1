"""The library that train-grpo is told to compare with: built, rated files, or a refresh's."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_pool import make_workspace, settings
from test_library import found_at, published
from tiny_grpo import grpo_config, write_pairs

from mixup.actors.reward_settings import RewardSettings
from mixup.errors import ConfigError
from mixup.models.folders import model_revision
from mixup.pipelines.grpo_plan import GrpoPlan, make_plan
from mixup.stages.library_folder import take_library
from mixup.stages.reference import load_reference
from mixup.workspace import ensure_workspace

MINILM = "bundled:minilm"


def plan(folder: Path, *overrides: str) -> GrpoPlan:
    """What is decided for pairs and rated files in a folder."""
    write_pairs(folder)
    config = grpo_config(folder / "w", Path("bundled:smollm2"), folder, *overrides)
    return make_plan(config, ensure_workspace(config.workspace, buckets=1))


def library(folder: Path, encoder: str = MINILM) -> Path:
    """A built library of random vectors, as if an encoder had made them."""
    made_by = {"model": encoder, "revision": model_revision(encoder)}
    return published(make_workspace(folder / "built"), encoder=made_by)


def rewards_with(folder: Path, place: Path) -> RewardSettings:
    """What decides rewards, once a library was taken."""
    found = plan(folder, f"library.paths=[{place}]")
    assert found.named.built is not None
    take_library(found.place, found.named.built, found.cells())
    return found.rewards()


def test_a_built_library_is_taken_by_its_folder_or_its_workspace(tmp_path):
    folder = library(tmp_path)
    built = found_at(folder)
    before = plan(tmp_path, f"library.paths=[{folder}]")
    assert (before.library(), before.named.files) == (None, ())  # found, and not yet taken
    by_folder = rewards_with(tmp_path, folder)
    assert by_folder.library == built.revision
    assert rewards_with(tmp_path, tmp_path / "built") == by_folder
    taken = load_reference(before.place, built.revision)
    assert len(taken.uids) == built.rows
    assert set(taken.fit.tasks) == {"qa", "para"}


def test_another_library_is_another_training(tmp_path):
    built, rated = plan(tmp_path, f"library.paths=[{library(tmp_path)}]"), plan(tmp_path)
    assert rated.named.built is None
    assert [Path(file.path).name for file in rated.named.files] == ["rated.jsonl"]
    assert built.cells().scoring() != rated.cells().scoring()


def test_a_library_of_another_encoder_is_refused(tmp_path):
    folder = library(tmp_path, "bundled:smollm2")  # any other model
    with pytest.raises(ConfigError, match=r"encoder 'bundled:smollm2' .* cannot be compared"):
        plan(tmp_path, f"library.paths=[{folder}]")


def test_the_key_is_named_where_the_paths_are_wrong(tmp_path):
    folder = library(tmp_path)
    with pytest.raises(ConfigError, match=r"library.paths: .* must stand alone, 2 paths"):
        plan(tmp_path, f"library.paths=[{folder}, {tmp_path / 'rated.jsonl'}]")
    with pytest.raises(ConfigError, match=r"library.paths: .*nowhere"):
        plan(tmp_path, f"library.paths=[{tmp_path / 'nowhere'}]")


def refreshed(folder: Path, encoder: str) -> Path:
    """A workspace in which a refresh has fitted a library with an encoder."""
    built = found_at(library(folder))
    take_library(make_workspace(folder / "refreshed"), built, settings(encoder=encoder))
    return folder / "refreshed"


def test_the_library_of_a_refresh_is_taken_if_it_has_the_encoder(tmp_path):
    place = refreshed(tmp_path, model_revision(MINILM))
    found = plan(tmp_path, "library.paths=[]", f"library.workspace={place}")
    assert found.rewards().library == found_at(tmp_path / "built").revision


def test_the_library_of_a_refresh_with_another_encoder_is_refused(tmp_path):
    place = refreshed(tmp_path, "f" * 32)
    with pytest.raises(ConfigError, match=r"another encoder \(revision f{12}\) than embed.model"):
        plan(tmp_path, "library.paths=[]", f"library.workspace={place}")
