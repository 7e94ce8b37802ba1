"""cluster.yaml against ray's own schema and checks."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CONFIG = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def config() -> dict:
    return yaml.safe_load(CONFIG.read_text())


def test_it_validates_against_rays_schema(config: dict):
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))


def test_an_unknown_key_is_refused(config: dict):
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config({**config, "max_wrokers": 1}))


def test_the_head_runs_no_tasks_and_workers_start_at_none(config: dict):
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    workers = {name: node for name, node in types.items() if name != config["head_node_type"]}
    assert len(workers) >= 2
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers.values())
    assert any("GPU" in node.get("resources", {}) for node in workers.values())
