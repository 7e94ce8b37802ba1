"""Where the report lies, and drawing it anew."""

import pytest
from small_workspace import RELEASE, make

from mixup.errors import ConfigError, MixupError
from mixup.operations.report import draw_report, report_location
from mixup.workspace import ensure_workspace


def test_the_report_lies_in_the_current_release(tmp_path):
    workspace = make(tmp_path).workspace
    assert report_location(workspace) == f"{workspace.uri}/releases/{RELEASE}/report.html"


def test_it_is_drawn_from_what_the_release_stores(tmp_path):
    page = draw_report(make(tmp_path).workspace)
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert RELEASE in page


def test_without_a_release_there_is_none(tmp_path):
    workspace = ensure_workspace(str(tmp_path / "empty"), buckets=1)
    for ask in (report_location, draw_report):
        with pytest.raises(ConfigError, match="no release yet"):
            ask(workspace)


@pytest.mark.parametrize("stored", [b'{"release_name": 1}', b"[]"])
def test_what_another_version_stored_is_said(tmp_path, stored):
    workspace = make(tmp_path).workspace
    workspace.write_bytes(f"releases/{RELEASE}/digest.json", stored)
    with pytest.raises(MixupError, match="another version"):
        draw_report(workspace)
