"""A built library as a folder: how it is published, found by path, checked, and read.

The folder holds Parquet and JSON files only, and a manifest with their hashes and the encoder's
revision: vectors of two encoders cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from blake3 import blake3

from mixup.actors.quality import Predictor
from mixup.actors.votes import TaskVotes, Votes
from mixup.config import QualityPredictor
from mixup.errors import ConfigError
from mixup.records import content_key
from mixup.stages.cell import CellSettings
from mixup.stages.reference import Reference, read_reference, save_reference
from mixup.workspace import Workspace, resolve_location

FOLDER = "libraries"
POINTER = f"{FOLDER}/current.json"
KIND, FORMAT = "mixup-library", 1
_MANIFEST = "manifest.json"
_WEB = ("http://", "https://")
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class BuiltLibrary:
    """A library that `mixup build-reference` made.

    Attributes:
        location: Its folder or URL.
        manifest: Its manifest.
    """

    location: str
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The library's name."""
        return self.manifest["library"]

    @property
    def revision(self) -> str:
        """A key of its rows and of what was fitted on them."""
        return self.manifest["revision"]

    @property
    def rows(self) -> int:
        """The rows that vote."""
        return self.manifest["counts"]["rows"]


def current_library(workspace: Workspace) -> tuple[str, str] | None:
    """The name of the current library and the key of what it was made from."""
    pointer = workspace.read_json(POINTER)
    return None if pointer is None else (pointer["library"], pointer["state"])


def point_to_library(workspace: Workspace, name: str, state: object) -> None:
    """Make a library the current one.

    Args:
        workspace: The workspace.
        name: The library's name.
        state: What it was made from, to tell when it is out of date.
    """
    workspace.write_json(POINTER, {"library": name, "state": content_key(state)})


def library_at(location: str) -> BuiltLibrary | None:
    """The library of a folder, or the current one of a workspace of `mixup build-reference`.

    None where the place holds neither: then it may be a file of rated rows.

    Raises:
        ConfigError: If it was written by a newer format.
    """
    if not location.strip() or location.startswith((*_WEB, "bundled:")):
        return None
    uri = resolve_location(location)
    place = Workspace(uri)
    try:
        if (pointer := place.read_json(POINTER)) is not None:
            uri = f"{uri}/{FOLDER}/{pointer['library']}"
        manifest = Workspace(uri).read_json(_MANIFEST)
    except (NotADirectoryError, IsADirectoryError, ValueError):  # a file, or no JSON
        return None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        return None
    if manifest["format"] > FORMAT:
        raise ConfigError(
            f"library {uri} has format {manifest['format']}, this version of mixup knows {FORMAT}; "
            "build it again with `mixup build-reference`"
        )
    return BuiltLibrary(uri, manifest)


def find_library(paths: Sequence[str], key: str) -> BuiltLibrary | None:
    """The built library that paths of the config name; None where they name files of rated rows.

    Args:
        paths: The paths.
        key: The config's key, for messages.

    Raises:
        ConfigError: If a library stands beside other paths.
    """
    found = [(path, library) for path in paths if (library := library_at(path)) is not None]
    if not found:
        return None
    if len(paths) > 1:
        raise ConfigError(
            f"{key}: {found[0][0]!r} is a built library and must stand alone, {len(paths)} paths "
            "are given; to join libraries, build one of all their rows with `mixup build-reference`"
        )
    return found[0][1]


def check_encoder(library: BuiltLibrary, *, model: str, revision: str) -> None:
    """Refuse a library of another encoder.

    Args:
        library: The library.
        model: The name of the encoder that is used.
        revision: Its revision.

    Raises:
        ConfigError: If the library's is another.
    """
    held = library.manifest["encoder"]
    if held["revision"] != revision:
        raise ConfigError(
            f"library {library.location} was built with the encoder {held['model']!r} (revision "
            f"{held['revision'][:12]}), but embed.model={model!r} has revision {revision[:12]}, "
            f"and vectors of two encoders cannot be compared; use embed.model={held['model']!r}, "
            "or build the library again with `mixup build-reference`"
        )


def check_predictor(library: BuiltLibrary, predictor: str) -> None:
    """Refuse a library without a regression where one is to tell quality in score curation.

    Raises:
        ConfigError: If it has none.
    """
    if predictor == "regression" and "regression.json" not in library.manifest["files"]:
        raise ConfigError(
            f"library {library.location} was built without a regression (fit.predictor); use "
            "curate.predictor=neighbors reward.predictor=neighbors, or build it again with "
            "fit.predictor=regression"
        )


def take_library(workspace: Workspace, library: BuiltLibrary, settings: CellSettings) -> None:
    """Make a built library the current one of a workspace; runs in a worker.

    Raises:
        ConfigError: If a file is missing or another.
    """
    reference = load_library(library)
    if settings.curate.predictor == "neighbors" and reference.fit.regressed is not None:
        revision = content_key(reference.revision, "neighbors")
        fit = replace(reference.fit, regressed=None)
        reference = replace(reference, revision=revision, fit=fit)
    decides, encoder = settings.scoring(), settings.encoder
    save_reference(workspace, reference, decides, rated=library.rows, encoder=encoder)


def load_library(library: BuiltLibrary) -> Reference:
    """Read a library whose files are as they were written.

    Raises:
        ConfigError: If a file is missing or another.
    """
    place = Workspace(library.location)
    filesystem, root = place.filesystem()
    for name, stated in library.manifest["files"].items():
        try:
            found = file_hash(filesystem, f"{root}/{name}")
        except FileNotFoundError:
            found = "missing"
        if found != stated["blake3"]:
            raise ConfigError(
                f"library {library.location}: {name} is not as its manifest states it (blake3 "
                f"{found[:12]}, expected {stated['blake3'][:12]}); copy the folder again, or build "
                "the library again with `mixup build-reference`"
            )
    above, _, folder = library.location.rpartition("/")
    return read_reference(Workspace(above), folder, library.revision)


def file_hash(filesystem: Any, path: str) -> str:
    """The blake3-128 hash of a file."""
    found = blake3()
    with filesystem.open_input_stream(path) as stream:
        while data := stream.read(_READ_BYTES):
            found.update(data)
    return found.hexdigest(length=16)


def stated_files(workspace: Workspace, folder: str) -> dict[str, dict[str, Any]]:
    """The bytes and the hash of each file of a folder of the workspace."""
    filesystem, root = workspace.filesystem()
    found: dict[str, dict[str, Any]] = {}
    for name in workspace.list(folder):
        path = f"{root}/{folder}/{name}"
        size = filesystem.get_file_info(path).size
        found[name] = {"bytes": size, "blake3": file_hash(filesystem, path)}
    return found


def predictor_of(reference: Reference, predictor: QualityPredictor) -> Predictor:
    """What tells quality by a library: its votes where it has one rating class, so no regression.

    Args:
        reference: The library.
        predictor: What is asked for.
    """
    if predictor == "regression" and reference.fit.regressed is not None:
        return reference.fit.regressed.regression
    return votes_of(reference)


def votes_of(reference: Reference) -> Votes:
    """A library as votes are taken of it: by task type where it is fitted so."""
    if not reference.fit.tasks:
        return Votes(reference.vectors_LD, reference.ratings_L, reference.transition)
    tasks_L = np.array(reference.tasks_L)
    order = np.argsort(tasks_L, kind="stable")  # a task type's rows are then one slice
    tasks_L = tasks_L[order]
    tasks = {
        task: TaskVotes(
            start=int(np.searchsorted(tasks_L, task, "left")),
            end=int(np.searchsorted(tasks_L, task, "right")),
            transition=fit.transition,
            effective_votes=fit.effective_votes,
        )
        for task, fit in reference.fit.tasks.items()
    }
    vectors, ratings = reference.vectors_LD[order], reference.ratings_L[order]
    return Votes(vectors, ratings, reference.transition, tasks)
