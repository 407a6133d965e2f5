"""What is imported is a dependency that pyproject.toml declares; what is optional says its extra."""

import ast
import os
import pathlib
import re
import sys
import tomllib
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement

import dsink_jax

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [*map(Requirement, texts)] for name, texts in PROJECT["optional-dependencies"].items()}
# What is imported under another name than it is installed by.
DISTRIBUTIONS = {
    **{"sklearn": "scikit-learn", "PIL": "pillow", "ott": "ott-jax", "orbax": "orbax-checkpoint"},
    **{"ot": "pot", "yaml": "pyyaml"},
}
FILES = sorted((ROOT / "dsink_jax").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))
# Imported where it is used, in place of a message: `write_events` returns None without it.
SILENT = {"tensorboardX"}
# For people who compose a loss or call `fit`: what only commands, CIFAR or drawings need is not for them.
LIGHT = {
    *("jax", "flax", "optax", "ott-jax", "orbax-checkpoint"),
    *("numpy", "scipy", "scikit-learn"),
}


class Import(NamedTuple):
    """What a file imports from others: distribution and name, the extra it is said to need, if it is lazy."""

    distribution: str
    name: str
    extra: str | None
    in_function: bool


def third_party_imports(tree):
    """All but those for type checkers alone."""

    def visit(node, extra, in_function):
        for child in ast.iter_child_nodes(node):
            names = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
            if isinstance(child, ast.ImportFrom):
                names = [child.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in ("dsink_jax", "experiments"):
                    distribution = DISTRIBUTIONS.get(top, top).replace("_", "-").lower()
                    yield Import(distribution, top, extra, in_function)
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            inner = extra
            if isinstance(child, ast.With) and "needs(" in ast.unparse(child.items[0]):
                inner = child.items[0].context_expr.args[0].value
            yield from visit(child, inner, in_function or isinstance(child, ast.FunctionDef))

    return visit(tree, None, False)


def distributions_imported(path):
    return {found.distribution for found in third_party_imports(ast.parse(path.read_text()))}


def brought(extra):
    """The distributions of an extra, and of those that it is made of."""
    found = set()
    for requirement in EXTRAS[extra]:
        if requirement.name == PROJECT["name"]:
            found |= set().union(*map(brought, requirement.extras))
        else:
            found |= named([requirement])
    return found


def named(requirements):
    return {requirement.name.replace("_", "-").lower() for requirement in requirements}


def test_the_plain_install_is_light():
    assert named(RUNTIME) == LIGHT


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_runtime_dependencies_or_say_their_extra(path):
    text = path.read_text()
    for distribution, name, extra, in_function in third_party_imports(ast.parse(text)):
        if distribution in named(RUNTIME):
            continue
        assert in_function, f"{name} is optional and imported by importing {path.name}"
        if extra is not None:
            assert distribution in brought(extra), f"{name} does not come with the extra {extra}"
        elif name not in SILENT:
            extras = set(re.findall(r'pip install "dsink-jax\[(\w+)\]"', text))
            assert any(distribution in brought(one) for one in extras), f"{name}: extra not named"


def test_every_runtime_dependency_is_imported():
    imported = {
        found.distribution for path in FILES for found in third_party_imports(ast.parse(path.read_text()))
    }
    assert named(RUNTIME) <= imported


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_experiments_import_what_their_extra_brings(path):
    extra = {"benchmark": "benchmark", "natural": "encoders"}.get(path.parent.name, "experiments")
    there = named(RUNTIME) | brought(extra)
    assert distributions_imported(path) <= there


def test_extras_that_are_named_exist():
    for path in [*FILES, *EXPERIMENTS, ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "Makefile"]:
        for extra in re.findall(r"(?:dsink-jax|['\"]\.)\[([\w,]+)\]", path.read_text()):
            assert set(extra.split(",")) <= EXTRAS.keys(), f"{path.name}: {extra}"


@pytest.mark.parametrize("extra", ["runtime", *EXTRAS])
def test_requirements_have_a_floor_that_the_constraints_keep(extra):
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    for requirement in RUNTIME if extra == "runtime" else EXTRAS[extra]:
        if requirement.name == PROJECT["name"]:
            continue
        assert ">=" in str(requirement.specifier), f"{requirement} has no lowest version"
        version = pinned.get(requirement.name.lower().replace("_", "-"))
        assert version is None or version in requirement.specifier, (
            f"constraints.txt: {requirement.name} {version}"
        )
        # What the gate installs is pinned.
        assert version or extra in ("benchmark", "encoders"), f"constraints.txt lacks {requirement.name}"


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
