"""The benchmark: its contestants solve the same task, the PyTorch step is ours, and it runs."""

import csv
import importlib.util
import os
import pathlib
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dsink_jax.errors import InputError
from experiments.benchmark import __main__ as command
from experiments.benchmark import cifar10, loop_speed, memory, probe, solvers
from experiments.benchmark.settings import Settings
from experiments.benchmark.solvers import growth, make_task, marginal_error, with_pot_iterations
from experiments.benchmark.table import Row, comparison, write_csv
from experiments.benchmark.timing import alternate, ratio
from experiments.benchmark.workload import DSINK, Stepper
from experiments.solver_accuracy import problem

NEEDS_TORCH = "PyTorch is not installed: pip install '.[benchmark]'"


def test_torch_step_is_ours():
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    from experiments.benchmark.agreement import agreement

    assert max(agreement(loop_speed.WORKLOAD, 16)) < 1e-4
    assert min(agreement(loop_speed.QUICK_WORKLOAD, 8, alpha=DSINK.alpha + 1)) > 1e-3


def test_torch_augmentation_crops_and_mirrors():
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from experiments.benchmark.torch_reference import augment

    torch.manual_seed(0)
    image = torch.arange(1, 17, dtype=torch.uint8).reshape(4, 4, 1)
    padded = np.pad(image.numpy()[..., 0], 1)
    windows = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {window.tobytes() for plain in windows for window in (plain, plain[:, ::-1])}
    found = {one[..., 0].numpy().tobytes() for one in augment(image.expand(400, 4, 4, 1), 1)}
    assert found == allowed


@pytest.mark.parametrize("error", [1e-3, 1e-6])
def test_all_solvers_end_at_the_same_labels(error):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    pytest.importorskip("ot", reason="POT is not installed: pip install '.[benchmark]'")
    from experiments.benchmark.contestants import CONTESTANTS

    arrays = [np.asarray(array) for array in problem(jax.random.key(0), (96, 12), 5.0)]
    task = with_pot_iterations(make_task(*arrays, error))
    labels = {name: np.asarray(enter(task)()) for name, enter in CONTESTANTS.items()}
    for name, found in labels.items():
        assert marginal_error(found, task.marginal) <= 1.2 * error, name
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(found, labels["ours"], atol=30 * error, err_msg=name)


def test_alternating_rounds_and_ratios():
    calls = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warm_ups=1)
    assert "".join(calls[:2]) == "ab" and len(times["a"]) == len(times["b"]) >= 2
    assert all(sorted(calls[i : i + 2]) == ["a", "b"] for i in range(0, len(calls), 2))
    assert ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0


def test_growth_exponents():
    sizes = [(n, c, 1e-6 * n**1.5 * c**0.5) for n, c in ((10, 10), (100, 10), (1000, 1000))]
    np.testing.assert_allclose(growth(sizes), (1.5, 0.5), rtol=1e-6)


def test_targets_judge_the_ratio_or_the_number(tmp_path):
    times = {"ours": [0.002, 0.002], "other": [0.001, 0.002]}
    row = comparison("solver", "case", times, "ours", "other", "<= 1.2")
    assert (row.value, row.other, row.ratio, row.verdict) == (2.0, 1.5, 1.5, "NO")
    assert Row("startup", "count", 0, "", target="<= 0").verdict == "yes"
    assert Row("startup", "count", float("nan"), "", target="<= 0").verdict == "NO"
    assert not Row("startup", "memory", 3.0, "MiB").verdict
    write_csv(tmp_path / "table.csv", [row])
    (written,) = csv.DictReader((tmp_path / "table.csv").open())
    assert written["ratio"] == "1.5" and written["target"] == "<= 1.2" and written["met"] == "NO"


def test_missing_package_is_one_line_and_code_2(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    monkeypatch.setattr(sys, "argv", ["benchmark", "--parts", "solver"])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and "torch" in message and ".[benchmark]" in message


def test_parts():
    assert command.parse([]) == Settings()
    assert command.parse(["--parts", "startup,solver", "--quick"]).chosen == ["solver", "startup"]
    with pytest.raises(InputError, match="solver"):
        command.parse(["--parts", "solvers"])
    with pytest.raises(InputError, match="nowhere is no folder"):
        command.parse(["--data-dir", "nowhere"])


@pytest.mark.slow
def test_quick_run_writes_the_table(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    pytest.importorskip("ot", reason="POT is not installed: pip install '.[benchmark]'")
    monkeypatch.setattr(solvers, "SECONDS", 0.1)
    page = command.run(Settings("solver", quick=True, output=tmp_path))
    assert (tmp_path / "benchmark.md").read_text() == page
    assert "numbers mean nothing" in page and "Load average at the start" in page
    rows = [SimpleNamespace(**row) for row in csv.DictReader((tmp_path / "benchmark.csv").open())]
    assert {row.against for row in rows} == {"bare lax loop", "PyTorch loop", "POT"}
    assert len(rows) == 3 * len(solvers.QUICK_SHAPES) * len(solvers.ERRORS)
    assert all(float(row.ratio) > 0 and row.met in ("yes", "NO") for row in rows)


@pytest.mark.slow
def test_nothing_is_compiled_after_the_first_epoch():
    found = probe.long_run(quick=True)
    assert found["compilations"] > 0 and found["recompilations"] == 0
    assert 0 < found["early"] <= found["peak"]


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR is not set: no real CIFAR here"
)
def test_memory_of_a_run_on_cifar10():
    folder = pathlib.Path(os.environ["TFDS_DATA_DIR"])
    (peak, growth), remarks = cifar10.measure(Settings("cifar10", quick=True, data_dir=folder))
    case = "200 images, small_cnn, 3 epochs each of imbalance_robust, noise_robust and target: "
    assert peak.case.startswith(case) and growth.case.startswith(case) and not remarks
    assert 200 < peak.value < 3072 and peak.verdict == "yes"  # JAX alone has more than 200 MiB
    assert abs(growth.value) < peak.value


def test_a_run_on_cifar10_that_fails_is_said_to(tmp_path):
    with pytest.raises(InputError, match=r"The run on CIFAR-10 failed: .*nothing-here"):
        cifar10.watch(["--data-dir", str(tmp_path / "nothing-here")], tmp_path)


def test_memory_is_what_the_process_holds():
    before = memory.resident_mib()
    block = np.ones(2**25)  # 256 MiB
    assert 240 < memory.resident_mib() - before < 300 and block[0] == 1
    assert memory.peak_mib() > 240
    assert memory.resident_mib(2**22 + 1) == memory.peak_mib(2**22 + 1) == 0  # no such process


def test_without_the_data_there_is_a_remark():
    assert cifar10.measure(Settings()) == ([], ["CIFAR-10: not measured without --data-dir."])


@pytest.mark.slow
def test_step_is_timed_and_changes_the_state():
    step = Stepper(loop_speed.QUICK_WORKLOAD, "cached")
    first, second = step(), step()
    assert float(first["loss"]) != float(second["loss"]) and float(second["sinkhorn_converged"]) == 1
