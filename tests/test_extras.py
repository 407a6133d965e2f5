"""Without extras a loss, fit and the audit work; what needs one names it in one line, without a traceback."""

import ast
import os
import re
import subprocess
import sys

import docstring_parser
import pytest

from dsink_jax.methods import METHODS
from dsink_jax.methods.docstrings import attribute_help
from dsink_jax.training import LineProgress, make_progress
from run_commands import ROOT

LIBRARY = ROOT / "dsink_jax"
# What no plain install brings, as the wheel's own test makes sure (.ci/installed.py).
ABSENT = (
    *("PIL", "cleanlab", "chex", "docstring_parser", "grain", "importlib_resources", "matplotlib"),
    *("ot", "pandas", "pooch", "pyarrow", "requests", "rich.progress", "tensorboardX"),
    *("tensorflow_datasets", "tyro"),
)


def without_extras(code, *arguments):
    """Runs code in a process where nothing of `ABSENT` can be imported."""
    absent = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", absent + code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_fit_and_audit_need_no_extra():
    done = without_extras(
        """
import numpy as np
import dsink_jax
labels = np.arange(40) % 2
features = np.eye(2)[labels] + np.random.default_rng(0).normal(0, 0.1, (40, 2))
print(dsink_jax.dsink_loss(*np.ones((3, 4, 2), np.float32)).shape)
how = {"epochs": 1, "batch_size": 20}
print(dsink_jax.fit(features, labels, **how).logits(features).shape)
print(dsink_jax.DSinkClassifier(**how).fit(features, labels).predict(features).shape)
print(dsink_jax.audit.audit_labels(features, labels, folds=2, **how).proposed.shape)
try:
    dsink_jax.fit(features, labels, noise_method="coteaching", **how)
except dsink_jax.InputError as error:
    print("estimated" in str(error))
try:
    from dsink_jax.report.gallery import png_data_uri
    png_data_uri(np.zeros((2, 2, 3), np.uint8))
except dsink_jax.InputError as error:
    print(error)
"""
    )
    assert done.stdout.splitlines()[-6:] == [
        *("(4,)", "(40, 2)", "(40,)", "(40,)", "True"),
        'A page with images needs pillow: pip install "dsink-jax[audit]"',
    ], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("dsink_jax.audit", 'error: This command needs tyro: pip install "dsink-jax[audit]"'),
        ("experiments.digits", 'error: Experiments need tyro, pandas: pip install ".[experiments]"'),
    ],
)
def test_commands_without_their_extra_end_in_one_line(module, said):
    start = "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    done = without_extras(start, module, "data.csv")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", said)


def test_progress_without_rich_is_plain_lines(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert isinstance(make_progress("target"), LineProgress)


@pytest.mark.parametrize("name", METHODS)
def test_help_of_options_is_what_another_parser_reads(name):
    method = METHODS[name].method
    parsed = docstring_parser.parse(method.__doc__ or "", docstring_parser.Style.GOOGLE).params
    expected = {entry.arg_name: " ".join(entry.description.split()) for entry in parsed}
    assert attribute_help(method) == expected


def messages(path):
    """The texts of a file but for docstrings."""
    tree = ast.parse(path.read_text())
    prose = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.value


# Whose business flags are.
COMMANDS = {"flags.py", "audit/__main__.py"}
SILENT = sorted({str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py")} - COMMANDS)


@pytest.mark.parametrize("path", SILENT)
def test_no_message_of_the_library_speaks_of_flags(path):
    for text in messages(LIBRARY / path):
        assert not re.search(r"(?<![\w-])--[a-z]|[Ss]ame command|\bexperiments\b", text), text
