"""What the README shows is true."""

import pathlib
import re
import shlex

import pytest

from dsink_jax.audit import __main__ as audit
from dsink_jax.flags import read_flags
from experiments import command_line, embeddings, headline, label_audit, overhead, scaling, solver_accuracy
from experiments.benchmark import __main__ as benchmark
from experiments.config import CIFAR, DIGITS
from experiments.natural import audit as natural_audit
from experiments.natural import command as natural_command
from experiments.natural import open_set
from experiments.study import __main__ as study

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_two_set_up_and_go_commands():
    block = re.search(r"<!-- commands -->(.*?)<!-- end -->", README, re.S).group(1)
    commands = re.findall(r"^make (\w+)", block, re.M)
    assert len(commands) == 2
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(commands) <= set(targets)


def test_the_table_of_results_is_that_of_the_files():
    assert re.search(r"<!-- results -->\n(.*?)<!-- end -->", README, re.S)[1] == headline.markdown(
        ROOT / "results"
    )


def test_it_is_short():
    """People read it whole."""
    assert len(README.split()) < 1400


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line.strip()
        for page in PAGES
        for line in re.findall(r"python -m (?:experiments|dsink_jax)\.[^`#\n]*", page.read_text())
    }
)
OTHERS = {
    "overhead": overhead.Flags,
    "natural": natural_command.Flags,
    "natural-audit": natural_audit.Flags,
    "open-set": open_set.Flags,
}
READERS = {
    "experiments.digits": lambda given: command_line.parse(DIGITS, given),
    "experiments.cifar": lambda given: command_line.parse(CIFAR, given),
    "experiments.study": lambda given: (
        read_flags(OTHERS[given[0]], given[1:]) if given[0] in OTHERS else read_flags(study.Flags, given)
    ),
    "experiments.embeddings": lambda given: read_flags(embeddings.Flags, given),
    "experiments.label_audit": lambda given: read_flags(label_audit.Flags, given),
    "experiments.solver_accuracy": lambda given: read_flags(solver_accuracy.Settings, given),
    "experiments.scaling": lambda given: scaling.parser().parse_args(given),
    "experiments.benchmark": benchmark.parse,
    "dsink_jax.audit": audit.flags_of,
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    """Every command of README, CONTRIBUTING and the guides has flags that there are."""
    _, _, module, *arguments = shlex.split(line.replace("DIR", "."))
    if "--help" not in arguments:
        assert READERS[module](arguments) is not None


def test_there_are_commands():
    assert len(COMMANDS) > 5
