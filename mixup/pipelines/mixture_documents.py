"""The documents of a mixture beside its data: manifest, digest and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mixup.ledger import StageCounts
from mixup.mixture_config import MixtureConfig
from mixup.report.digest import ModelUsed
from mixup.report.mixture_digest import MixtureDigest, mixture_to_json
from mixup.report.mixture_page import render_mixture_page
from mixup.stages.mixture_survey import MixtureSurvey, pairs_by_task
from mixup.stages.summary import package_versions, stage_record, stage_rows
from mixup.workspace import Workspace


@dataclass(frozen=True)
class Documents:
    """All that the documents of a mixture are made from.

    ``inputs`` are the fingerprints of the files of its pool, those of items among them, and
    ``rater`` is the revision of who rated their rows.
    """

    name: str
    created_at: str
    config: MixtureConfig
    models: Sequence[ModelUsed]
    inputs: Sequence[str]
    rater: str
    tables: Mapping[str, int]
    survey: MixtureSurvey
    files: Mapping[str, tuple[int, str]]
    articles: int
    quarantine: Mapping[str, int]
    stages: Sequence[StageCounts]
    skipped: Sequence[str]
    seconds: float


def manifest_of(found: Documents) -> dict[str, Any]:
    """The manifest: what went in, what came out, and everything needed to make it again."""
    survey = found.survey
    return {
        "mixture": found.name,
        "created_at": found.created_at,
        "config": found.config.model_dump(mode="json"),
        "config_fingerprint": found.config.fingerprint(),
        "counts": {
            "pairs": survey.pairs.total(),
            "by_task": pairs_by_task(survey, found.config.tasks),
            "rows": survey.fates.total(),
            "articles": found.articles,
        },
        "fates": dict(survey.fates.most_common()),
        "made": _made(found),
        "quarantine": dict(found.quarantine),
        "tables": dict(found.tables),
        "inputs": {"files": list(found.inputs), "rater": found.rater},
        "models": [asdict(model) for model in found.models],
        "versions": package_versions(),
        "stages": [stage_record(counts) for counts in found.stages],
        "skipped": list(found.skipped),
        "seconds": {
            **{counts.stage: counts.seconds for counts in found.stages},
            "total": found.seconds,
        },
        "files": {
            name: {"rows": rows, "blake3": key} for name, (rows, key) in sorted(found.files.items())
        },
        "licences": survey.of("licence"),
    }


def _made(found: Documents) -> dict[str, dict[str, int]]:
    """Of each task type the items that the teacher made, and the reasons for none."""
    made: dict[str, dict[str, int]] = {}
    for (task, outcome), count in sorted(found.survey.made.items()):
        if task in found.config.tasks:
            made.setdefault(task, {})[outcome] = count
    return made


def digest_of(found: Documents) -> MixtureDigest:
    """What the report shows."""
    survey = found.survey
    classes: dict[str, dict[str, int]] = {}
    for (name, rating), count in sorted(survey.classes.items()):
        classes.setdefault(name, {})[rating] = count
    return MixtureDigest(
        name=found.name,
        created_at=found.created_at,
        run=found.name,
        config_fingerprint=found.config.fingerprint(),
        pairs=pairs_by_task(survey, found.config.tasks),
        fates=dict(survey.fates.most_common()),
        made=_made(found),
        classes=classes,
        plans=survey.of("plan"),
        rules=survey.of("rule"),
        sources=survey.of("rating_source"),
        sizes=survey.of("size"),
        lengths=survey.of("length"),
        licences=survey.of("licence"),
        thoughts=survey.by[("thought", "yes")],
        keeps_facts=survey.by[("keeps_facts", "yes")],
        articles=found.articles,
        quarantine=dict(found.quarantine),
        stages=stage_rows(found.stages, found.skipped),
        models=tuple(found.models),
        tables=dict(found.tables),
        examples=tuple(
            example
            for stratum in sorted(survey.examples)
            for _, example in survey.examples[stratum]
        ),
    )


def write_documents(
    workspace: Workspace, folder: str, manifest: Mapping[str, Any], digest: MixtureDigest
) -> None:
    """Write the documents into a mixture's folder, as its file system spells it."""
    filesystem, _ = workspace.filesystem()
    texts = {
        "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True),
        "digest.json": mixture_to_json(digest),
        "report.html": render_mixture_page(digest),
    }
    for file, text in texts.items():
        with filesystem.open_output_stream(f"{folder}/{file}") as stream:
            stream.write(text.encode("utf-8", "replace"))
