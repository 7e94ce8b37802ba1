from pathlib import Path

import pytest

from mixup.config_file import describe, load_config
from mixup.errors import ConfigError
from mixup.models.encoder import similarity_of
from mixup.pipelines.reference_plan import settings_of
from mixup.reference_config import ReferenceConfig

JOB = Path(__file__).parents[2] / "jobs" / "reference.yaml"


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(ReferenceConfig, JOB, overrides)
    return str(raised.value)


def test_the_job_beside_the_package_reads_the_bundled_pool():
    config = load_config(ReferenceConfig, JOB)
    assert config.ingest is not None
    assert config.ingest.paths == ["bundled:sample"]
    assert config.mixture is None
    assert (config.fit.min_rated, config.fit.max_rows) == (20, 40_000)


def test_a_stated_reliability_decides_the_fit():
    similarity = similarity_of("bundled:minilm", None)
    stated, other = (
        settings_of(load_config(ReferenceConfig, JOB, given), similarity, "encoder", "rater")
        for given in (["fit.reliability=0.8"], [])
    )
    assert (stated.curate.reliability, other.curate.reliability) == (0.8, "auto")
    assert stated.scoring() != other.scoring()
    assert "fit.reliability" in refused("fit.reliability=1.5")


def test_files_or_a_mixture_alone_will_do():
    assert load_config(ReferenceConfig, JOB, ["mixture=w", "ingest=null"]).mixture == "w"
    assert "one of ingest.paths and mixture" in refused("ingest=null")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mixtur=w", "did you mean 'mixture'"),
        ("fit.max_row=3", "did you mean 'fit.max_rows'"),
        ("rate.type=reference", "rate.type: unknown kind 'reference'"),
        ("fit.min_rated=1", "fit.min_rated"),
    ],
)
def test_a_mistake_is_said_with_its_place(override, said):
    assert said in refused(override)


def test_every_key_is_documented():
    for key, _, text in describe(ReferenceConfig):
        assert text or key.endswith(".type"), key
