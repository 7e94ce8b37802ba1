import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from mixup.config import Section
from mixup.config_file import describe, load_config
from mixup.errors import ConfigError
from mixup.rater_config import ColumnRater, ReferenceRater
from mixup.refresh_config import RefreshConfig

MINIMAL = "workspace: w\ningest:\n  paths: [pool.jsonl]\n"
ENCODER = (
    "embed.similarity={near_duplicate: .9, cluster_floor: .6, alignment_low: .2, "
    "alignment_high: .7}"
)


@pytest.fixture
def load(tmp_path):
    def load(*overrides: str, text: str = MINIMAL) -> RefreshConfig:
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(RefreshConfig, path, overrides)

    return load


def refused(load, *overrides: str, text: str = MINIMAL) -> str:
    with pytest.raises(ConfigError) as raised:
        load(*overrides, text=text)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_minimal_config_has_the_papers_values(load):
    config = load()
    assert config.embed.model == "BAAI/bge-m3"
    assert config.distill.model == "Qwen/Qwen2.5-1.5B-Instruct"
    assert config.curate.threshold == 4
    assert config.curate.transition_neighbors == 3
    assert config.cluster.max_size == 5
    assert config.reward.weights == {
        "quality": 0.5,
        "alignment": 0.4,
        "format": 0.1,
        "coverage": 0.0,
    }
    assert (config.select.size, config.select.distilled_share) == (10_000, 0.5)
    assert config.select.shortfall == "shrink"
    assert config.max_dropped_share == 0.2
    assert isinstance(config.rate, ReferenceRater)


def test_overrides_are_yaml_and_reach_every_depth(load):
    config = load(
        "seed=7",
        "select.licences=[MIT, CC0-1.0]",
        ENCODER,
        "embed.similarity.near_duplicate=0.8",
        "select.licences=null",
        "ingest.paths=['a=b.jsonl', c]",
    )
    assert config.seed == 7
    assert config.embed.similarity is not None
    assert config.embed.similarity.near_duplicate == 0.8
    assert config.select.licences is None
    assert config.ingest.paths == ["a=b.jsonl", "c"]


@pytest.mark.parametrize(
    "override", ["seed", "=3", "seed 3", ".seed=1", "ingest..paths=1", "ingest.=1"]
)
def test_an_override_of_another_form_is_refused(load, override):
    assert "is not of the form section.key=value" in refused(load, override)


def test_an_override_below_a_value_is_refused(load):
    assert "'paths' is not a section" in refused(load, "ingest.paths.first=a")


def test_an_override_that_is_not_yaml_is_refused(load):
    for value in ("[a", "[" * 5000, "!!python/object:os.system x", "2026-02-30", "{a: 1, a: 2}"):
        said = refused(load, f"ingest.paths={value}")
        assert "the value is not YAML" in said
        assert len(said) < 300


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("workspce=w", "workspace"),
        ("max_droped_share=0.1", "max_dropped_share"),
        ("ingest.licnce=MIT", "ingest.licence"),
        ("ingest.license=MIT", "ingest.licence"),
        ("embed.modell=x", "embed.model"),
        ("rate.feild=x", "rate.field"),
        ("curate.treshold=3", "curate.threshold"),
        ("select.sise=3", "select.size"),
        ("licence=MIT", "ingest.licence"),
        ("ingets=3", "ingest"),
        ("ingest.path=[a]", "ingest.paths"),
        ("SEED=3", "seed"),
        ("ray.cpu=2", "ray.cpus"),
        ("samples=3", "distill.samples"),
        ("distill.batch_cluster=3", "distill.batch_clusters"),
    ],
)
def test_a_misspelt_key_names_the_nearest(load, misspelt, nearest):
    key = misspelt.partition("=")[0]
    assert f"unknown key {key!r}; did you mean {nearest!r}?" in refused(load, misspelt)


def test_a_misspelt_key_of_a_nested_section_names_the_nearest(load):
    said = refused(load, ENCODER, "embed.similarity.cluster_flor=0.5")
    assert "did you mean 'embed.similarity.cluster_floor'?" in said


def test_a_misspelt_required_key_is_reported_as_misspelt(load):
    said = refused(load, text="workspace: w\ningest:\n  pahts: [a]\n")
    assert "unknown key 'ingest.pahts'; did you mean 'ingest.paths'? (and 1 more)" in said


def test_a_key_like_no_other_points_to_the_help(load):
    assert "`--help` lists the known keys" in refused(load, "zzz=1")


def test_the_kinds_of_rate(load):
    assert load("rate.type=column").rate == ColumnRater()
    assert load("rate.field=stars").rate == ReferenceRater(field="stars")
    assert load("rate.library=[a.jsonl]").rate == ReferenceRater(library=["a.jsonl"])
    labels = load("rate.type=column", "rate.scale=null", "rate.classes={good: 5, bad: 1}").rate
    assert labels.classes == {"good": 5, "bad": 1}


def test_an_unknown_kind_names_the_known_ones(load):
    said = refused(load, "rate.type=zzz")
    assert "rate.type: unknown kind 'zzz'; known: " in said
    assert "'column'" in said
    assert "'reference'" in said
    assert "rate.type: unknown kind 'colum'; did you mean 'column'?" in refused(
        load, "rate.type=colum"
    )


def test_a_key_of_another_kind_is_said_to_be_one(load):
    said = refused(load, "rate.type=column", "rate.library=[a]")
    assert "the key 'rate.library' belongs to another `type`" in said


def test_a_label_named_as_a_kind_keeps_its_place(load):
    said = refused(load, "rate.type=column", "rate.classes={column: 9}")
    assert "rate.classes.column:" in said


@pytest.mark.parametrize(
    ("overrides", "place", "shown"),
    [
        (["curate.threshold=9"], "curate.threshold", "it is 9"),
        (["curate.threshold=0"], "curate.threshold", "it is 0"),
        (["curate.min_rated=1"], "curate.min_rated", "it is 1"),
        (["curate.margin=0.6"], "curate", "leaves 0 to 1"),
        (["curate.keep_at=0.02"], "curate", "leaves 0 to 1"),
        (["curate.keep_at=1.5"], "curate.keep_at", "it is 1.5"),
        (["curate.keep_at=high"], "curate.keep_at", 'it is "high"'),
        (["curate.keep_at={precision: 1}"], "curate.keep_at.precision", "it is 1"),
        (["curate.keep_at.precision=abc"], "curate.keep_at.precision", 'it is "abc"'),
        (
            ["curate.keep_at.precision=0.9", "rate.library=[a]"],
            "the config",
            "needs a pool without rate.library",
        ),
        (["curate.effective_votes=0"], "curate.effective_votes", "it is 0"),
        (["curate.effective_votes=aut"], "curate.effective_votes", "'auto'"),
        (["curate.suspicion=on"], "curate.suspicion", "'bootstrap', 'reference' or 'off'"),
        (["seed=abc"], "seed", 'it is "abc"'),
        (["select.size=0"], "select.size", "it is 0"),
        (["select.shortfall=shrnk"], "select.shortfall", "'shrink', 'fill' or 'fail'"),
        (["embed.actor_cpus=-1"], "embed.actor_cpus", "it is -1"),
        (["embed.actor_cpus=.nan"], "embed.actor_cpus", "finite number"),
        (["rate.scale=[0, .inf]"], "rate.scale.1", "finite number"),
        (["rate.scale=[5, 1]"], "rate", "must be [lowest, highest]"),
        (["rate.scale=null"], "rate", "one of scale (numbers) and classes (labels) is needed"),
        (["cluster.min_size=6"], "cluster", "min_size must not be above max_size"),
        (["distill.max_tokens=4096"], "the config", "must be below distill.context_tokens"),
        (["reward.weights={qualty: 1}"], "reward", "unknown reward component 'qualty'"),
        (["reward.weights={quality: 0}"], "reward", "not all 0"),
        (["reward.weights={quality: -1, format: 2}"], "reward", "must be >= 0"),
        (["reward.task_weights={qa: {tone: 1}}"], "reward", "unknown reward component 'tone'"),
        (["ingest.paths=[]"], "ingest.paths", "at least 1 item"),
        (["ingest=3"], "ingest", "it is 3"),
        (["ingest=null"], "ingest", "expected a section, of keys and values (it is null)"),
        (["embed.similarity=0.8"], "embed.similarity", "expected a section"),
        (["rate=column"], "rate", "expected a section"),
        (["ingest.paths=a.jsonl"], "ingest.paths", 'valid list (it is "a.jsonl")'),
        (["ingest.paths=[a, 2]"], "ingest.paths.1", "it is 2"),
        (["ingest.max_row_bytes=8MB"], "ingest.max_row_bytes", 'it is "8MB"'),
        (["max_dropped_share=20%"], "max_dropped_share", 'it is "20%"'),
        (["select.licences=MIT"], "select.licences", "valid list"),
        (["rate.scale=[1, 2, 3]"], "rate.scale", "at most 2 items"),
        (["rate.classes={good: best}"], "rate.classes.good", 'it is "best"'),
        (["reward.weights={qualty: 1}"], "reward", "did you mean 'quality'?"),
    ],
)
def test_a_wrong_value_is_shown_with_its_place(load, overrides, place, shown):
    said = refused(load, *overrides)
    assert f"{place}: " in said
    assert shown in said


@pytest.mark.parametrize(
    ("similarity", "shown"),
    [
        ("{near_duplicate: .5, cluster_floor: .6, alignment_low: 0, alignment_high: 1}", "floor"),
        ("{near_duplicate: .9, cluster_floor: .6, alignment_low: .5, alignment_high: .5}", "low"),
    ],
)
def test_thresholds_out_of_order_are_refused(load, similarity, shown):
    assert shown in refused(load, f"embed.similarity={similarity}")


def test_an_override_fills_a_section_that_is_empty(load):
    config = load("ingest.paths=[a]", text="workspace: w\ningest:\n")
    assert config.ingest.paths == ["a"]


def test_a_long_key_is_cut(load):
    assert len(refused(load, f"{'x' * 5000}=1")) < 300


def test_a_long_value_is_cut(load):
    said = refused(load, f"seed={'x' * 5000}")
    assert len(said) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("? [1, 2]\n: 3\n", "is not YAML"),
        (MINIMAL + "seed: 1\nseed: 2\n", "the key 'seed' stands twice"),
        (MINIMAL + "ingest:\n  licence: MIT\n", "the key 'ingest' stands twice"),
        ("\tworkspace: w", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("- a\n- b\n", "holds a list; expected keys and values"),
        ("", "'workspace' is missing (and 1 more)"),
    ],
)
def test_a_file_that_is_no_config_is_refused(load, text, said):
    assert said in refused(load, text=text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config at .*absent\.yaml"):
        load_config(RefreshConfig, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(RefreshConfig, tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"workspace: caf\xe9\n")
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(RefreshConfig, tmp_path / "latin.yaml")


def test_every_key_is_documented():
    rows = list(describe(RefreshConfig))
    keys = [key for key, _, _ in rows]
    assert len(keys) == len(set(keys)) > 80
    assert [key for key, _, text in rows if not text.strip()] == []
    assert {"ingest.paths", "rate.type", "rate.library", "embed.similarity.cluster_floor"} <= set(
        keys
    )


def test_described_defaults_are_the_models(load):
    described = {key: default for key, default, _ in describe(RefreshConfig)}
    assert described["workspace"] == described["ingest.paths"] == "required"
    assert described["rate.type"] == '"reference"'
    assert json.loads(described["select.size"]) == 10_000
    assert json.loads(described["reward.weights"])["alignment"] == 0.4


def sections_of(model: type[Section]) -> set[type[Section]]:
    found = {model}
    waiting: list[Any] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        waiting.extend(get_args(annotation))
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found |= sections_of(annotation)
    return found


def test_every_section_is_frozen_and_refuses_unknown_keys(load):
    sections = sections_of(RefreshConfig)
    assert len(sections) >= 11
    for section in sections:
        assert section.model_config.get("frozen") is True
        assert section.model_config.get("extra") == "forbid"
    with pytest.raises(ValidationError):
        load().select.size = 5


def test_the_json_schema_has_the_documentation():
    schema = RefreshConfig.model_json_schema()
    assert schema["properties"]["seed"]["description"]
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_a_fingerprint_changes_with_a_value_only(load):
    assert load().fingerprint() == load("seed=0").fingerprint()
    assert load().fingerprint() != load("seed=1").fingerprint()


def test_a_config_survives_json(load):
    config = load("rate.type=column", ENCODER)
    assert RefreshConfig.model_validate(config.model_dump(mode="json")) == config
