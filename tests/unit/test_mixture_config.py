from pathlib import Path

import pytest

from mixup.config_file import describe, load_config
from mixup.errors import ConfigError
from mixup.mixture_config import MixtureConfig, RulesTeacher

JOB = Path(__file__).parents[2] / "jobs" / "mixture.yaml"
JUDGE = "rate={type: judge, engine: {type: endpoint, base_url: 'http://h/v1', model: m}}"
ENDPOINT = "teacher={type: endpoint, base_url: 'http://h/v1', model: m}"


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(MixtureConfig, JOB, overrides)
    return str(raised.value)


def test_the_job_beside_the_package_has_the_papers_values():
    config = load_config(MixtureConfig, JOB)
    assert isinstance(config.teacher, RulesTeacher)
    assert (config.variants.least, config.variants.most) == (2, 20)
    assert (config.splits.test, config.splits.sft, config.splits.validation) == (0.19, 0.3, 0.1)
    assert config.tasks == ["qa", "mcq", "tfq", "cs", "para"]
    assert config.text.paths == ["bundled:text"]


def test_text_or_a_pool_alone_will_do():
    assert load_config(MixtureConfig, JOB, ["ingest=null"]).ingest is None
    assert load_config(MixtureConfig, JOB, ["text.paths=[]"]).text.paths == []
    assert "one of text.paths and ingest.paths" in refused("ingest=null", "text.paths=[]")


def test_what_a_model_writes_needs_a_judge():
    assert "rate.type must be judge" in refused(ENDPOINT)
    assert load_config(MixtureConfig, JOB, [ENDPOINT, JUDGE]).teacher.type == "endpoint"
    assert load_config(MixtureConfig, JOB, [ENDPOINT, "text.paths=[]"]).ingest is not None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("txt.paths=[a]", "did you mean 'text'"),
        ("teacher.type=endpont", "teacher.type: unknown kind 'endpont'; did you mean 'endpoint'?"),
        ("teacher.temprature=1", "did you mean 'teacher.temperature'"),
        ("teacher={type: endpoint, model: m}", "'teacher.base_url' is missing"),
        ("rate.engine=1", "belongs to another `type`"),
        ("variants.mean=25", "variants.mean"),
        ("variants={least: 5, mean: 3}", "least <= mean <= most"),
        ("text.min_tokens=300", "min_tokens must not be above max_tokens"),
        ("tasks=[qa, qa]", "tasks names one twice"),
        ("tasks=[poem]", "tasks"),
        ("classes={'*': 6}", "classes"),
    ],
)
def test_a_mistake_is_said_with_its_place(override, said):
    assert said in refused(override)


def test_every_key_is_documented():
    for key, _, text in describe(MixtureConfig):
        documented = bool(text) or key in ("workspace",) or key.endswith(".type")
        assert documented, key
