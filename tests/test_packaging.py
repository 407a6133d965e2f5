"""What is imported is a dependency that pyproject.toml declares; what is optional says its extra."""

import ast
import os
import pathlib
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

import dsink_jax

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [*map(Requirement, texts)] for name, texts in PROJECT["optional-dependencies"].items()}
# What is imported under another name than it is installed by.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "ott": "ott-jax", "orbax": "orbax-checkpoint"}
FILES = sorted((ROOT / "dsink_jax").rglob("*.py"))
# Imported where it is used, in place of a message: `write_events` returns None without it.
SILENT = {"tensorboardX"}


def third_party_imports(tree):
    """Distribution and name of what a file imports from others, and whether a function does it."""

    def visit(node, in_function):
        for child in ast.iter_child_nodes(node):
            names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
            if isinstance(child, ast.ImportFrom):
                names = [child.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top != "dsink_jax":
                    yield DISTRIBUTIONS.get(top, top).replace("_", "-").lower(), top, in_function
            yield from visit(child, in_function or isinstance(child, ast.FunctionDef))

    return visit(tree, False)


def named(requirements):
    return {requirement.name.replace("_", "-").lower() for requirement in requirements}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_runtime_dependencies_or_say_their_extra(path):
    text = path.read_text()
    for distribution, name, in_function in third_party_imports(ast.parse(text)):
        if distribution in named(RUNTIME):
            continue
        extras = [extra for extra in ("report", "large") if distribution in named(EXTRAS[extra])]
        assert extras, f"{name} is in no extra and no runtime dependency"
        assert in_function, f"{name} is optional and imported by importing {path.name}"
        assert name in SILENT or f'pip install "dsink-jax[{extras[0]}]"' in text, f"{name}: extra not named"


def test_every_runtime_dependency_is_imported():
    imported = {found[0] for path in FILES for found in third_party_imports(ast.parse(path.read_text()))}
    # TFDS needs importlib_resources and does not declare it; chex checks arrays in tests.
    assert named(RUNTIME) - imported <= {"importlib-resources", "chex"}


def test_extras_that_are_named_exist():
    for path in [*FILES, *(ROOT / "experiments").rglob("*.py"), ROOT / "README.md"]:
        for extra in re.findall(r"(?:dsink-jax|['\"]\.)\[([\w,]+)\]", path.read_text()):
            assert set(extra.split(",")) <= EXTRAS.keys(), f"{path.name}: {extra}"


@pytest.mark.parametrize("extra", ["runtime", *EXTRAS])
def test_requirements_have_a_floor_that_the_constraints_keep(extra):
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    for requirement in RUNTIME if extra == "runtime" else EXTRAS[extra]:
        assert ">=" in str(requirement.specifier), f"{requirement} has no lowest version"
        version = pinned.get(requirement.name.lower().replace("_", "-"))
        assert version is None or version in requirement.specifier, (
            f"constraints.txt: {requirement.name} {version}"
        )
        assert extra != "runtime" or version, f"constraints.txt lacks {requirement.name}"


def test_version_and_typing_marker():
    assert PROJECT["version"] == dsink_jax.__version__
    assert (ROOT / "dsink_jax" / "py.typed").is_file()


def test_jobs_run_what_there_is_on_every_python_that_is_supported():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = [step["run"].split()[0] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == [".ci/run", ".ci/lowest", ".ci/install"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)
    supported = [line.split("::")[-1].strip() for line in PROJECT["classifiers"] if ":: 3." in line]
    assert jobs["install"]["strategy"]["matrix"]["python"] == supported
