"""Walks the imports of the package and keeps the layers: a line imports only from lines above it.

The checker is itself tested on small packages with planted violations, so that it is known to fail.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import mixup

ROOT = Path(mixup.__file__).parent

LINES: Mapping[str, int] = {
    # 0: failures, typed config, the record and the schemas
    **dict.fromkeys(("errors", "config", "rater_config", "refresh_config"), 0),
    **dict.fromkeys(("mixture_config", "reference_config", "training_config", "grpo_config"), 0),
    **dict.fromkeys(("config_file", "records"), 0),
    # 1: places, cover and commit, counts and fates, one writer
    **dict.fromkeys(("workspace", "tables", "commits", "cover", "ledger", "lock", "interrupts"), 1),
    # 2: the paper; 2a and 2b do not know each other, 2c may import both
    **dict.fromkeys(("text", "quality"), 2),
    **dict.fromkeys(("clusters", "rewards", "selection", "mixture"), 3),
    # 3: models and the actors that both 4a and 4b use
    **dict.fromkeys(("models", "actors"), 4),
    # 4: the stages and training; the report stands above the stages that write it
    "report": 5,
    **dict.fromkeys(("stages", "training", "evaluation"), 6),
    # 5: one function a job; what people ask of a workspace or a cluster
    **dict.fromkeys(("pipelines", "operations"), 7),
    # 6: the command line
    **dict.fromkeys(("cli", "__main__"), 8),
}
SIDEWAYS: Mapping[tuple[str, str], str] = {
    ("config", "errors"): "a config error is one of the failures",
    ("rater_config", "config"): "a rater is a section of several jobs",
    ("refresh_config", "config"): "a job's config is made of sections that others have too",
    ("refresh_config", "rater_config"): "one of them is the rater",
    ("mixture_config", "config"): "a job's config is made of sections that others have too",
    ("mixture_config", "rater_config"): "one of them is the rater",
    ("reference_config", "config"): "a job's config is made of sections that others have too",
    ("reference_config", "rater_config"): "one of them is the rater",
    ("reference_config", "mixture_config"): "a library's rows are rated as a mixture's are",
    ("training_config", "config"): "a job's config is made of sections that others have too",
    ("grpo_config", "config"): "a job's config is made of sections that others have too",
    ("grpo_config", "rater_config"): "one of them is the library's rater",
    ("grpo_config", "refresh_config"): "one of them is the rubric",
    ("grpo_config", "training_config"): "what all trainings have in common",
    ("config_file", "config"): "a config file is read into a config",
    ("config_file", "errors"): "a config error is one of the failures",
    ("config", "records"): "a section's fingerprint is a content key",
    ("records", "errors"): "a row that is no record is one of the failures",
    ("tables", "workspace"): "a table lies in a workspace",
    ("commits", "tables"): "what is committed is a table's",
    ("commits", "workspace"): "a table lies in a workspace",
    ("lock", "workspace"): "the lock lies in a workspace",
    ("mixture", "clusters"): "MIXTURE is written in the form in which groups are read (linearize)",
    ("selection", "rewards"): "acceptance is a verdict on the rubric's outcome",
    ("actors", "models"): "an actor holds a model",
    ("evaluation", "training"): "the benchmarks need a fine-tuned model",
    ("operations", "pipelines"): "a plan is the plan of a job",
    ("__main__", "cli"): "the entry point",
}
PURE = {"text", "quality", "clusters", "rewards", "selection", "mixture"}
PURE_PACKAGES = {"numpy", "scipy", "pyarrow", "faiss", "blake3"}
HEAVY = {
    *("torch", "vllm", "transformers", "sentence_transformers", "ray"),
    *("trl", "deepspeed", "accelerate", "peft", "datasets"),
}
# Inside a function, where one must be running to need it.
MAY_LOAD = {"models", "actors", "stages", "training", "evaluation", "pipelines", "operations"}
# A trainer is a subclass of a library's; nothing that a run with nothing to do imports.
MAY_LOAD_AT_ONCE = {"training", "evaluation"}
NAMELESS = {"utils", "helpers", "common", "base", "util", "helper", "misc"}


@dataclass(frozen=True)
class Import:
    """A module that is imported, and whether that happens as the importing module is loaded."""

    module: str
    line: int
    at_once: bool


def imports_of(path: Path, package: str, root: Path) -> Iterator[Import]:
    """Every import of a file, also inside functions; relative ones made absolute."""
    inside = list(path.relative_to(root).with_suffix("").parts)
    here = [package, *(inside[:-1] if inside[-1] == "__init__" else inside)]
    container = here if inside[-1] == "__init__" else here[:-1]

    def walk(node: ast.AST, *, at_once: bool) -> Iterator[Import]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_once = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            at_once = False
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_once)
        elif isinstance(node, ast.ImportFrom):
            above = container[: len(container) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module == package:  # from mixup import stages
                for alias in node.names:
                    yield Import(f"{package}.{alias.name}", node.lineno, at_once)
            else:
                yield Import(module, node.lineno, at_once)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_once=at_once)

    return walk(ast.parse(path.read_text(encoding="utf-8")), at_once=True)


def violations(root: Path, package: str) -> list[str]:
    """Everything that is against the layers, as `file:line: what`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        room = relative.parts[0].removesuffix(".py")
        if nameless := NAMELESS & {part.removesuffix(".py") for part in relative.parts}:
            found.append(f"{relative}: {nameless.pop()} says nothing of what it is for")
        if room == "__init__":
            continue
        if room not in LINES:
            found.append(f"{relative}: {room} stands in no line; add it to the table")
            continue
        for imported in imports_of(path, package, root):
            if reason := _refusal(room, imported, package):
                found.append(f"{relative}:{imported.line}: {reason}")
    return found


def _refusal(room: str, imported: Import, package: str) -> str | None:
    top, *rest = imported.module.split(".")
    if top == package:
        return _inside(room, rest[0]) if rest else None
    if top in HEAVY:
        return _heavy(room, top, at_once=imported.at_once)
    if room in PURE and top not in PURE_PACKAGES and top not in sys.stdlib_module_names:
        return f"{room} is pure and may not import {top}"
    return None


def _inside(room: str, other: str) -> str | None:
    if other == room or other not in LINES or (room, other) in SIDEWAYS:
        return None  # a name of the package itself, such as __version__, is in no line
    if LINES[other] < LINES[room]:
        return None
    return f"{room} may not import {other}, which does not stand above it"


def _heavy(room: str, package: str, *, at_once: bool) -> str | None:
    if room not in MAY_LOAD:
        return f"{room} may not import {package}"
    if at_once and room not in MAY_LOAD_AT_ONCE:
        return f"{room} may import {package} only inside the function that needs it"
    return None


def test_every_import_of_the_package_keeps_the_layers():
    assert violations(ROOT, "mixup") == []


def test_the_checker_sees_the_imports_of_the_package():
    seen = {
        (path.relative_to(ROOT).parts[0], imported.module)
        for path in ROOT.rglob("*.py")
        for imported in imports_of(path, "mixup", ROOT)
    }
    assert ("stages", "ray") in seen
    assert ("models", "vllm") in seen
    assert ("tables.py", "mixup.workspace") in seen
    assert ("stages", "mixup.report.digest") in seen


def test_every_stated_sideways_import_goes_within_a_line():
    assert all(LINES[room] == LINES[other] for room, other in SIDEWAYS)


def plant(root: Path, files: Mapping[str, str]) -> list[str]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return violations(root, "mixup")


CLEAN = {
    "__init__.py": '"""A package."""\nfrom mixup.config import x\n',
    "errors.py": "import json\n",
    "config.py": "from mixup.errors import x\nimport pydantic\n",
    "text/parse.py": "import re\nimport numpy as np\nfrom mixup.errors import x\n",
    "text/tasks.py": "from mixup.text.parse import x\nfrom . import parse\n",
    "clusters/cells.py": "from mixup.text.tasks import x\nfrom mixup.quality import y\n",
    "models/encoder.py": "def load():\n    import torch\n    from vllm import LLM\n",
    "stages/rate.py": "from mixup.report import page\ndef f():\n    import ray\n",
    "cli.py": "from mixup import __version__\nfrom mixup.pipelines import refresh\n",
}


def test_a_clean_package_passes(tmp_path):
    assert plant(tmp_path, CLEAN) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("text/parse.py", "import ray\n", "text/parse.py:1: text may not import ray"),
        ("text/parse.py", "def f():\n    import ray\n", ":2: text may not import ray"),
        ("quality/x.py", "import pandas\n", "quality is pure and may not import pandas"),
        ("text/parse.py", "from mixup.stages import rate\n", "text may not import stages"),
        ("text/parse.py", "import mixup.stages.rate\n", "text may not import stages"),
        ("text/parse.py", "from mixup import stages\n", "text may not import stages"),
        ("text/parse.py", "from ..stages.rate import x\n", "text may not import stages"),
        ("text/parse.py", "from .. import stages\n", "text may not import stages"),
        ("text/__init__.py", "from ..stages import rate\n", "text may not import stages"),
        ("text/parse.py", "def f():\n    from mixup.stages import x\n", ":2: text may not"),
        ("text/parse.py", "class A:\n    from mixup.stages import x\n", ":2: text may not"),
        ("tables.py", "try:\n    import mixup.stages\nfinally: pass\n", "tables may not"),
        ("text/parse.py", "from mixup.quality import x\n", "text may not import quality"),
        ("quality/x.py", "from mixup.text import x\n", "quality may not import text"),
        ("rewards/x.py", "from mixup.selection import x\n", "rewards may not import selection"),
        ("errors.py", "from mixup.config import x\n", "errors may not import config"),
        ("report/page.py", "from mixup.stages import x\n", "report may not import stages"),
        ("models/a.py", "from mixup.actors import x\n", "models may not import actors"),
        ("stages/rate.py", "from mixup.pipelines import x\n", "stages may not import pipelines"),
        ("stages/rate.py", "import ray.data\n", "ray only inside the function"),
        ("models/a.py", "class A:\n    import torch\n", "torch only inside the function"),
        ("models/a.py", "try:\n    import vllm\nexcept E: pass\n", "vllm only inside"),
        ("tables.py", "def f():\n    import torch\n", "tables may not import torch"),
        ("cli.py", "def f():\n    import ray\n", "cli may not import ray"),
        ("text/utils.py", "", "utils says nothing"),
        ("common/parse.py", "", "common says nothing"),
        ("novel/parse.py", "", "novel stands in no line"),
    ],
)
def test_a_planted_violation_is_reported(tmp_path, name, text, said):
    found = plant(tmp_path, {**CLEAN, name: text})
    assert any(said in line for line in found), found
    assert all(line.startswith(name) for line in found), found


def loaded_by(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules_of(rooms: set[str]) -> list[str]:
    """The dotted names of the modules of some rooms."""
    names = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in rooms:
            names.append(".".join(["mixup", *parts]).removesuffix(".__init__"))
    return names


def test_no_module_but_the_trainers_loads_anything_heavy():
    modules = modules_of(set(LINES) - MAY_LOAD_AT_ONCE)
    assert {"mixup.cli", "mixup.tables", "mixup.stages.distill"} <= set(modules)
    assert not HEAVY & loaded_by("import " + ", ".join(modules))
