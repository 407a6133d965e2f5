"""Flags from a file: what a run wrote, given back; what is given by hand wins; what is wrong is named."""

import dataclasses
import json

import pytest

from dsink_jax.errors import InputError
from experiments.command_line import parse
from experiments.config import CIFAR, DIGITS


def write(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_what_a_run_wrote_gives_its_settings_back(tmp_path):
    made = dataclasses.replace(
        DIGITS, alpha=3.0, flip=True, noise_rate=0.25, noise_method="gce", gce_q=0.5, download=False
    )
    settings = {name: value for name, value in dataclasses.asdict(made).items()}
    path = write(tmp_path, {"settings": settings, "versions": {"jax": "0.10"}})
    assert parse(DIGITS, ["--config", path]) == made
    assert parse(CIFAR, [f"--config={path}"]) == made
    assert parse(DIGITS, ["--alpha", "7", "--config", path, "--seed", "3"]) == dataclasses.replace(
        made, alpha=7.0, seed=3
    )
    assert parse(DIGITS, ["--config", write(tmp_path, {"alpha": 2, "noise-rate": None})]).alpha == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"alhpa": 3.0}, "alpha"),
        ({"alpha": "much"}, "--alpha"),
        ({"alpha": [1, 2]}, "one value"),
        ({"noise": "symetric"}, "symmetric"),
        ([1, 2], "by name"),
        ("{", "not JSON"),
    ],
)
def test_what_is_wrong_is_named(content, said, tmp_path):
    with pytest.raises(InputError, match=said):
        parse(DIGITS, ["--config", write(tmp_path, content)])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        parse(DIGITS, ["--config", str(tmp_path / "nowhere.json")])
    with pytest.raises(InputError, match="needs the path"):
        parse(DIGITS, ["--config"])
