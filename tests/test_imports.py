"""Imports run one way, down the flow of data."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each part may import the parts before it, and itself; nothing else of the project.
ALLOWED = {
    "errors": set(),
    "extras": {"errors"},
    "paths": {"errors"},
    "atomic": set(),
    "array_checks": set(),
    "collectives": set(),
    "transport": {"collectives"},
    "allocation": {"array_checks", "collectives", "transport"},
    "sigmoid_roots": {"collectives"},
    "multilabel": {"array_checks", "collectives", "sigmoid_roots"},
    "open_set": {"errors", "array_checks", "collectives", "allocation"},
    "losses": {"array_checks", "allocation", "multilabel", "open_set", "transport"},
    "noise_model": {"array_checks"},
    "data": {"errors", "extras", "paths", "atomic"},
    "models": {"errors", "collectives"},
    "evaluation": set(),
    "methods": {"errors", "collectives", "allocation", "multilabel", "open_set", "losses"},
    "training": {"errors", "extras", "atomic", "collectives", "data", "methods", "models"},
    "training_set": {"errors", "data", "methods", "training"},
    "recipe": {"errors", "data", "methods", "models", "training", "training_set"},
    "report": {"errors", "extras"},
    "flags": {"errors", "extras", "paths"},
    "estimator": {
        *(
            "errors",
            "paths",
            "atomic",
            "allocation",
            "multilabel",
            "open_set",
            "noise_model",
            "data",
            "methods",
            "models",
        ),
        *("training", "training_set", "recipe"),
    },
    "audit": {
        *("errors", "extras", "paths", "atomic", "allocation", "open_set", "noise_model", "data"),
        *("methods", "models", "training", "training_set", "recipe", "report", "flags", "estimator"),
    },
}


def parts_imported(path):
    """Names of the parts of dsink_jax that a file imports, and whether it imports experiments."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "dsink_jax":
                names = [f"dsink_jax.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "dsink_jax" and rest:
                found.add(rest[0])
            elif top in ("experiments", "tests"):
                found.add(top)
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_no_arrow_points_back(part):
    package = ROOT / "dsink_jax" / part
    files = list(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]
    assert files
    for path in files:
        assert parts_imported(path) <= ALLOWED[part] | {part}, path


def test_every_part_has_a_place_in_the_flow():
    found = {path.stem for path in (ROOT / "dsink_jax").iterdir() if path.suffix in ("", ".py")}
    assert found - {"__init__", "__pycache__"} == set(ALLOWED)


def test_one_file_uses_ott_and_one_calls_pmap():
    sources = {path.name: path.read_text() for path in (ROOT / "dsink_jax").rglob("*.py")}
    assert {name for name, text in sources.items() if "from ott" in text or "import ott" in text} == {
        "transport.py"
    }
    assert {name for name, text in sources.items() if "jax.pmap(" in text} == {"parallel.py"}
