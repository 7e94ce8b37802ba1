"""Report: where the report of the current release, or mixture, lies, and drawing it anew."""

from __future__ import annotations

import json

from mixup.errors import ConfigError, MixupError
from mixup.report.digest import from_json
from mixup.report.mixture_digest import mixture_from_json
from mixup.report.mixture_page import render_mixture_page
from mixup.report.page import render_page
from mixup.stages.publish import current_release
from mixup.stages.publish_mixture import FOLDER as MIXTURES
from mixup.stages.publish_mixture import current_mixture
from mixup.workspace import Workspace


def report_location(workspace: Workspace) -> str:
    """The path or URL of the report of the current release; without one, of the current mixture.

    Raises:
        ConfigError: If the workspace has neither.
    """
    return f"{workspace.uri}/{_folder(workspace)}/report.html"


def draw_report(workspace: Workspace) -> str:
    """The same report as HTML, drawn by this version of mixup.

    Raises:
        ConfigError: If the workspace has neither a release nor a mixture yet.
        MixupError: If what is stored for the report is missing or of another version.
    """
    folder = _folder(workspace)
    stored = f"{folder}/digest.json"
    document = workspace.read_json(stored)
    if document is None:
        raise MixupError(f"{workspace.uri}/{stored} is missing, so no report can be drawn")
    try:
        if folder.startswith(MIXTURES):
            return render_mixture_page(mixture_from_json(json.dumps(document)))
        return render_page(from_json(json.dumps(document)))
    except ValueError as error:  # pydantic's ValidationError and ShapeError are ValueErrors
        raise MixupError(
            f"{workspace.uri}/{stored} was written by another version of mixup: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _folder(workspace: Workspace) -> str:
    if (release := current_release(workspace)) is not None:
        return f"releases/{release[0]}"
    if (mixture := current_mixture(workspace)) is not None:
        return f"{MIXTURES}/{mixture[0]}"
    raise ConfigError(
        f"workspace {workspace.uri} has no release yet and no mixture; `mixup refresh` or "
        "`mixup build-mixture` makes one"
    )
