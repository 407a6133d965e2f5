"""The method that CONTRIBUTING.md adds really is one file and one line."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def block(kind):
    """Path and content of the code block under a marker."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return re.search(rf"<!-- {kind}: (\S+) -->\n```python\n(.*?)```", text, re.S).groups()


@pytest.mark.slow
def test_a_method_is_one_file_and_one_line(tmp_path):
    for name in ("dsink_jax", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    path, content = block("file")
    (tmp_path / path).write_text(content)
    path, line = block("line")
    registry = (tmp_path / path).read_text()
    registry = registry.replace("METHODS: dict[str, Entry] = {\n", "METHODS: dict[str, Entry] = {\n" + line)
    (tmp_path / path).write_text("from dsink_jax.methods.absolute_error import AbsoluteError\n" + registry)

    def digits(*arguments):
        command = [sys.executable, "-m", "experiments.digits", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"^mae +noise +Ghosh", digits("--list-methods"), re.M)
    chosen = ("--noise-method", "mae", "--mae-weight", "3", "--baselines", "none")
    digits(*chosen, "--epochs", "1", "--devices", "1", "--run-dir", "run")
    models = json.loads((tmp_path / "run" / "results.json").read_text())["models"]
    assert models["noise_robust"]["method"] == "mae"
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["mae_weight"] == 3.0
