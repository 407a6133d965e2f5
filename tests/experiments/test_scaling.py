"""The cost model against compiled programs, the methods' own state and the document."""

import pathlib

import pytest

from dsink_jax.methods import METHODS
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


def test_state_worked_by_hand():
    setting = scaling.Setting("", 1000, 7, 8, 8)
    found = {name: scaling.state_bytes(name, setting) for name in METHODS}
    # A target for each class; a weight; weight and loss, or the losses of two networks; nothing.
    kept = {"elr": 4 * 7, "truncated_gce": 4, "ot_reweighting": 8, "dividemix": 8, "tabasco": 8}
    assert found == {name: 1000 * kept.get(name, 0) for name in METHODS}


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
