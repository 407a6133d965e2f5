"""The cost model against compiled programs, the methods' own state and the document."""

import pathlib

import pytest

from dsink_jax.methods import METHODS, TrainingFacts, build_method
from dsink_jax.methods.registry import MethodOptions, bytes_per_example, option_name
from experiments import scaling

DOCUMENT = (pathlib.Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


def test_the_document_shows_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scaling"])
    scaling.main()
    _, _, rest = DOCUMENT.partition("<!-- model -->\n")
    table, _, _ = rest.partition("<!-- end -->")
    assert table == capsys.readouterr().out


def test_numbers_worked_by_hand():
    setting = scaling.Setting("", 100, 1000, 800, 8)
    gathered = scaling.cost_per_step(setting, distribute=False, iterations=10)
    distributed = scaling.cost_per_step(setting, distribute=True, iterations=10)
    assert gathered.operations == pytest.approx(8 * distributed.operations) == pytest.approx(147 * 800_000)
    assert gathered.received_bytes == 7 * 400_000
    assert (gathered.exchanges, distributed.received_bytes) == (0, 0)
    assert distributed.exchanges == pytest.approx(22)
    assert distributed.exchanged_bytes == pytest.approx(22 * 4000)
    assert gathered.memory_bytes == 4 * 400_000 + 500 + 2 * 3_200_000 + 2 * 400_000
    assert distributed.memory_bytes == 8 * 400_000 + 500


@pytest.mark.parametrize("num_devices", [2, 8])
@pytest.mark.parametrize("distribute", [False, True])
def test_memory_is_the_compilers(cpus, num_devices, distribute):
    setting = scaling.Setting("", 0, 1000, 512, num_devices)
    compiled = scaling.compiled_loss(setting, cpus[:num_devices], distribute=distribute)
    model = scaling.cost_per_step(setting, distribute=distribute).memory_bytes
    assert scaling.compiled_bytes(compiled) == pytest.approx(model, rel=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_state_is_the_methods(name):
    for num_classes in (4, 7):
        identity = tuple(tuple(float(i == j) for j in range(num_classes)) for i in range(num_classes))
        counts = (50,) * num_classes
        facts = TrainingFacts(num_classes, counts, counts, epochs=10, transition_matrix=identity)
        told = METHODS[name].method.told
        options = MethodOptions(**{option_name(name, option): value for option, value in told.items()})
        setting = scaling.Setting("", 1000, num_classes, 8, 8)
        assert scaling.state_bytes(name, setting) == 1000 * bytes_per_example(
            build_method(name, facts, options), num_classes
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (4, "4.0 B"), (999, "999 B"), (999.7, "1.0 kB"), (4000, "4.0 kB"), (26.2e9, "26 GB")],
)
def test_amounts_in_words(value, text):
    assert scaling.amount(value) == text


def test_measured_table(cpus, monkeypatch):
    monkeypatch.setattr(scaling, "MEASURED", (scaling.Setting("", 0, 10, 64, 8),) * 2)
    monkeypatch.setattr(scaling, "REPEATS", 1)
    first, last = scaling.measured_table(cpus).splitlines()[2:4]
    assert first.startswith("| 64 x 10 |")
    assert len(last.split("|")) == 8
