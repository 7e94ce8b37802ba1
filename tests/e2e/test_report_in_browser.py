"""The report in a real browser: figures drawn under its content policy, data that stays text."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mixup.report.digest import Counts, Digest, SourceRows
from mixup.report.page import render_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--virtual-time-budget=5000",
    "--enable-logging=stderr",
    "--dump-dom",
]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_figures_are_drawn_and_scripts_in_the_data_are_not_run(tmp_path: Path):
    attack = "</script><script>document.body.id = 'pwned'</script><img src=x onerror=alert(1)>"
    digest = Digest(
        release_name=attack,
        created_at="2025-11-22T03:14:07Z",
        run="run-1",
        config_fingerprint="00",
        counts=Counts(9, 9, 9, 0, 9, 0, 9),
        fates={"original": 9},
        sources=(SourceRows(attack, attack, 9),),
        ratings=(1, 2, 3, 2, 1, 0),
        notes=(attack,),
    )
    page = tmp_path / "report.html"
    page.write_text(render_page(digest), encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 'id="plot-ratings"' in seen.stdout
    assert seen.stdout.count('class="main-svg"') >= 2
    assert 'id="pwned"' not in seen.stdout
    assert "CONSOLE" not in seen.stderr
