"""Report: where the current release's report lies, and drawing it anew."""

from __future__ import annotations

import json

from mixup.errors import ConfigError, MixupError
from mixup.report.digest import from_json
from mixup.report.page import render_page
from mixup.stages.publish import current_release
from mixup.workspace import Workspace


def report_location(workspace: Workspace) -> str:
    """The path or URL of the current release's report.

    Raises:
        ConfigError: If the workspace has no release yet.
    """
    return f"{workspace.uri}/{_folder(workspace)}/report.html"


def draw_report(workspace: Workspace) -> str:
    """The current release's report as HTML, drawn by this version of mixup.

    Raises:
        ConfigError: If the workspace has no release yet.
        MixupError: If what the release stores for the report is missing or of another version.
    """
    stored = f"{_folder(workspace)}/digest.json"
    document = workspace.read_json(stored)
    if document is None:
        raise MixupError(f"{workspace.uri}/{stored} is missing, so no report can be drawn")
    try:
        return render_page(from_json(json.dumps(document)))
    except ValueError as error:  # pydantic's ValidationError and ShapeError are ValueErrors
        raise MixupError(
            f"{workspace.uri}/{stored} was written by another version of mixup: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _folder(workspace: Workspace) -> str:
    current = current_release(workspace)
    if current is None:
        raise ConfigError(
            f"workspace {workspace.uri} has no release yet; `mixup refresh` makes one"
        )
    return f"releases/{current[0]}"
