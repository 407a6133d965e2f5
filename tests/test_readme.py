"""What the README shows is true."""

import pathlib
import re
import shlex

import pytest

from experiments import command_line
from experiments.config import CIFAR, DIGITS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_two_set_up_and_go_commands():
    block = re.search(r"<!-- commands -->(.*?)<!-- end -->", README, re.S).group(1)
    commands = re.findall(r"^make (\w+)", block, re.M)
    assert len(commands) == 2
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(commands) <= set(targets)


@pytest.mark.parametrize("line", re.findall(r"^python -m experiments\.(?:digits|cifar).*$", README, re.M))
def test_commands_parse(line):
    _, _, module, *arguments = shlex.split(line.replace("DIR", "somewhere"), comments=True)
    preset = {"experiments.digits": DIGITS, "experiments.cifar": CIFAR}[module]
    if "--help" not in arguments:
        assert command_line.parse(preset, arguments).epochs >= 1
