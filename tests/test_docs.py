"""What the documentation shows is true: its examples run, its numbers are those of the results."""

import collections
import csv
import doctest
import json
import pathlib
import re
import shutil
import statistics
import sys

import jax
import pytest

import word_vectors
from experiments import embeddings, label_audit
from experiments.kept_rows import read_rows
from experiments.study import __main__ as study_command
from experiments.study.budgets import BUDGETS
from experiments.study.catalogue import STUDIES
from experiments.study.models import DEFAULT_ALPHA

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
AUDIT = (ROOT / "docs" / "audit.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
COMPOSING = (ROOT / "docs" / "composing.md").read_text()


def python_blocks(text):
    """Source of each python block, and the line it starts in."""
    for match in re.finditer(r"^```(?:python|py|pycon)\b[^\n]*\n(.*?)^```", text, re.S | re.M):
        yield match[1], text.count("\n", 0, match.start()) + 1


def failures(text, name="page"):
    """Runs every python block, in one namespace, and returns what went wrong."""
    wrong = []
    namespace = {"__name__": "__main__"}
    for source, line in python_blocks(text):
        test = doctest.DocTestParser().get_doctest(source, namespace, name, name, line)
        if not test.examples:
            wrong.append(f"{name}:{line}: a python block that no test can run: write it with >>>")
            continue
        doctest.DocTestRunner(verbose=False).run(test, out=wrong.append, clear_globs=False)
        namespace = test.globs
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_examples_give_what_they_show(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", word_vectors)  # that one is downloaded
    assert jax.device_count() == 8
    # `fit` on one, as on most people's machines.
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    assert failures(page.read_text(), page.name) == []


def test_examples_are_really_run():
    first = "```python\n>>> a = 1\n```\n"
    assert failures(first + "```python\n>>> a + 1\n2\n```\n") == []
    assert len(failures(first + "```python\n>>> a + 1\n3\n```\n")) == 1
    assert len(failures("```python\n>>> a\n```\n")) == 1
    assert len(failures("```python\na = 1\n```\n")) == 1
    assert len(list(python_blocks(COMPOSING))) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def block(kind, page=COMPOSING):
    return re.search(rf"<!-- {kind} -->\n(.*?)<!-- end -->", page, re.S)[1]


def study(name, measures=("last",), empty=None, budget="small"):
    """Percent by setting, model and measure: one for each seed; `empty` for what is not known."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    with open(ROOT / "results" / name / "results.csv") as file:
        for row in csv.DictReader(file):
            if row["budget"] == budget:
                for measure in measures:
                    found[row["setting"]][row["model"], measure].append(100 * float(row[measure] or empty))
    return found


# Student's t of n - 1 degrees of freedom is the interval's half-width over the standard error.
HALF_WIDTH = {3: 4.303 / 3**0.5, 5: 2.776 / 5**0.5, 10: 2.262 / 10**0.5, 15: 2.145 / 15**0.5}


def numbers_in(cells):
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d", cells)]


def spread(values, factor=1.0):
    return [statistics.mean(values), factor * statistics.stdev(values)]


def behind(ones, others):
    return spread([one - other for one, other in zip(ones, others, strict=True)], HALF_WIDTH[len(ones)])


@pytest.mark.slow
def test_pages_of_results_are_what_their_files_give(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    there = shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.rmtree(there / "benchmark")  # its page is written where it is measured
    pages = {page: page.read_text() for page in there.rglob("*.md")}
    for drawn in (*pages, *there.rglob("*.svg")):
        drawn.unlink()
    monkeypatch.setattr("sys.argv", ["study", "all", "--steps", "render", "--output", str(there)])
    study_command.main()
    rows = {"audit": label_audit.write_table, "embeddings": embeddings.write_table}
    for name, write_table in rows.items():
        write_table(there / name, read_rows(there / name / f"{name}.csv"))
    assert {page.parent.name for page in pages} == {
        *STUDIES,
        *rows,
        *(name for name in study_command._OTHERS if (ROOT / "results" / name).is_dir()),
    }
    assert {page.parent.name for page, text in pages.items() if page.read_text() != text} == set()
    for page, text in pages.items():
        assert all((page.parent / figure).exists() for figure in re.findall(r"\]\((\S+\.svg)\)", text))


def test_first_table_is_that_of_the_naive_study():
    measures = ("last", "few", "noisy_corrected")
    (found,) = study("naive", measures).values()
    naive = {model for model, _ in found if model.startswith("naive")}
    best = max(naive, key=lambda model: statistics.mean(found[model, "last"]))
    shown = re.findall(r"^\| (.*?) \| (.*) \|$", block("naive", RESULTS), re.M)[1:]
    models = {
        "cross-entropy": "cross_entropy",
        "f_L": "f_L-logit_adjustment",
        "f_N:": "f_N-elr",
        "ensemble": "ensemble",
        "naive distillation, weights tuned": "naive-noise_weight=0.7",
        f"naive distillation, best of {len(naive)}": best,
        "f_N with": "noise_robust_adjusted",
        "**D-SINK": "dsink",
    }
    assert len(shown) == len(models) + 1  # and the rule under the head
    for (start, model), (title, cells) in zip(models.items(), shown[1:], strict=True):
        assert title.startswith(start)
        expected = [number for measure in measures for number in spread(found[model, measure])]
        if model != "dsink":
            expected += behind(found["dsink", "last"], found[model, "last"])
        numbers = numbers_in(cells)
        assert numbers == pytest.approx(expected, abs=0.051)


def test_differences_are_those_of_the_main_study():
    found = study("main")
    lines = re.findall(r"^\| (\d+), (\w+) (\S+) \| (.*) \|$", block("main", RESULTS), re.M)
    assert len(lines) == len(found) == 8

    for ratio, noise, rate, cells in lines:
        expected = beside_the_others(found[f"digits-ratio-{ratio}-{noise}-{rate}"])
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_fifteen_seeds_are_those_of_two_studies():
    (ten,), five = study("naive").values(), study("main")["digits-ratio-10-symmetric-0.4"]
    both = {key: [*values, *ten[key]] for key, values in five.items()}
    expected = beside_the_others(both)[-4:]  # of the best of each, of adjusted f_N
    assert numbers_in(block("fifteen", RESULTS)) == pytest.approx(expected, abs=0.051)


def beside_the_others(found):
    """D-SINK's accuracy, and how far it is ahead of the best of five, each seed's best, adjusted f_N."""
    models = {model: values for (model, measure), values in found.items() if measure == "last"}
    own, adjusted = models.pop("dsink"), models.pop("noise_robust_adjusted")
    models.pop(_EARLY, None)
    assert len(models) == 5
    best = max(models.values(), key=statistics.mean)
    best_of_each = [max(values) for values in zip(*models.values(), strict=True)]
    return [
        *spread(own),
        *(number for others in (best, best_of_each, adjusted) for number in behind(own, others)),
    ]


_EARLY = "f_L-logit_adjustment-epochs=0.3"
_FIVE = ("cross_entropy", "f_L-logit_adjustment", "f_N-elr", "naive-noise_weight=0.7", "ensemble")


def test_real_cifar_is_that_of_the_main_study():
    found = study("main", ("last", "noisy_memorised"), budget="cpu")
    lines = re.findall(r"^\| CIFAR-(\d+): (\d+), (.*?) \| (.*) \|$", block("cifar", RESULTS), re.M)
    assert len(lines) == len(found) == 4
    for classes, ratio, noise, cells in lines:
        models = found[f"cifar{classes}-ratio-{ratio}-{noise.replace(' ', '-')}"]
        shown = [models["cross_entropy", "noisy_memorised"], *(models[model, "last"] for model in _FIVE)]
        expected = [number for values in shown for number in spread(values)] + beside_the_others(models)
        if early := models.get((_EARLY, "last")):
            expected += behind(models["dsink", "last"], early)
        assert bool(early) == ("not run" not in cells)
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_wrong_labels_seen_through_are_those_of_the_study():
    found = study("correction", ("last", "noisy_corrected"))
    lines = re.findall(r"^\| (\w+) (0\.\d) \| (.*) \|$", block("correction", RESULTS), re.M)
    assert len(lines) == len(found) == 6
    for noise, rate, cells in lines:
        models = found[f"digits-ratio-10-{noise}-{rate}"]
        seen = {name: models[name, "noisy_corrected"] for name in ("cross_entropy", "f_N-elr", "dsink")}
        expected = [number for values in seen.values() for number in spread(values)]
        for measure in ("noisy_corrected", "last"):
            expected += behind(models["dsink", measure], models["f_N-elr", measure])
        numbers = numbers_in(cells)
        assert numbers == pytest.approx(expected, abs=0.051)


def test_auxiliaries_worse_together_are_those_of_the_study():
    (found,) = study("teacher-quality").values()
    lines = re.findall(r"^\| (\w+) (0\.\d+) \| (.*) \|$", block("together", RESULTS), re.M)
    assert len(lines) == 6
    for way, share, cells in lines:
        name = f"dsink-f_L=logit_adjustment-{way}={share}-f_N=elr-{way}={share}"
        same, own = found[name, "last"], found[f"{name}-draw=1", "last"]
        base = found["logit_adjustment", "last"]
        expected = [*spread(same), *behind(same, base), *spread(own), *behind(own, base), *behind(same, own)]
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_accuracy_over_alpha_is_that_of_the_study():
    (found,) = study("alpha").values()
    for base, start in (("logit_adjustment", "dsink"), ("cross_entropy", "dsink-base=cross_entropy")):
        (cells,) = re.findall(rf"^\| `{base}` \| (.*) \|$", block("alpha", RESULTS), re.M)
        models = [start if alpha == 10 else f"{start}-alpha={alpha}" for alpha in (1, 3, 10, 30, 100)]
        expected = [number for model in models for number in spread(found[model, "last"])]
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_settings_beside_the_papers_are_ours():
    section = RESULTS[RESULTS.index("## Against the paper") : RESULTS.index("## Real CIFAR")]
    shown = {
        name: {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)", cell)}
        for name, cell in re.findall(r"^\| (.*?) \| (.*?) \|", section, re.M)
    }
    paper, cpu, small = (BUDGETS[name].preset for name in ("paper", "cpu", "small"))
    assert {one.alpha for one in (paper, cpu, small)} == {DEFAULT_ALPHA}
    assert paper.alpha in shown["alpha"]
    assert {paper.threshold, paper.max_iterations, paper.epsilon} <= shown["Sinkhorn"]
    for row, presets in (("`--budget paper`", (paper,)), ("`--budget cpu` and digits", (cpu, small))):
        for one in presets:
            assert {one.epochs, one.batch_size, one.learning_rate} <= shown[row]
    assert {paper.momentum, paper.weight_decay} <= shown["`--budget paper`"]


def test_shares_of_the_rarest_classes_are_those_measured():
    shares = collections.Counter()
    with open(ROOT / "results" / "long-tail" / "class_shares.csv") as file:
        for row in csv.DictReader(file):
            if int(row["class"]) >= 7:
                shares[row["kind"]] += 100 * float(row["share"]) / 3  # of three seeds
    f_l = [f"f_L-{name}" for name in ("logit_adjustment", "logit_adjustment-epochs=0.3", "cross_entropy")]
    text = " ".join(RESULTS.split())
    for kind in ("true labels", "observed labels", "f_N-elr", *f_l):
        assert f"{shares[kind]:.1f} %" in text, kind


def test_one_training_has_one_result():
    """A model of a corrupted set and a seed that several studies tell of is the same training in all.

    On one kind of machine: on another, rounding drives long trainings apart.
    """
    results = {}
    for path in sorted((ROOT / "results").glob("*/results.csv")):
        environments = json.loads((path.parent / "environments.json").read_text())
        with open(path) as file:
            for row in csv.DictReader(file):
                device = environments[row["environment"]]["device"]
                key = (device, *(row[name] for name in ("budget", "setting", "seed", "model")))
                results.setdefault(key, {}).setdefault((row["last"], row["few"]), []).append(path.parent.name)
    differing = {key: found for key, found in results.items() if len(found) > 1}
    assert not differing, f"{len(differing)} models, such as {next(iter(differing.items()))}"


def test_changes_under_asymmetric_noise_are_those_of_the_study():
    found = study("asymmetric", ("last", "noisy_corrected"))
    lines = re.findall(r"^\| `(\S+)` \| (.*) \|$", block("asymmetric", RESULTS), re.M)
    names = {model for models in found.values() for model, _ in models if model.startswith("dsink-")}
    assert {f"dsink-{changed}" for changed, _ in lines} == names
    for changed, cells in lines:
        expected = []
        for models in found.values():
            expected += behind(models[f"dsink-{changed}", "last"], models["dsink", "last"])
            expected += spread(models[f"dsink-{changed}", "noisy_corrected"])
        numbers = numbers_in(cells)
        assert numbers == pytest.approx(expected, abs=0.051)


def test_fewer_epochs_are_those_of_the_study():
    found = study("early-stopping", budget="cpu")
    lines = re.findall(r"^\| (\d+), (.*?) \| (.*) \|$", block("early", RESULTS), re.M)
    assert len(lines) == len(found) == 3
    for ratio, noise, cells in lines:
        models = found[f"cifar10-ratio-{ratio}-{noise.replace(' ', '-')}"]
        short, own = models[_EARLY, "last"], models["dsink", "last"]
        expected = [*spread(short), *spread(own), *behind(own, short)]
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_changes_at_ratio_100_are_those_of_the_study():
    (found,) = study("long-tail", ("last", "few", "noisy_corrected"), budget="cpu").values()
    lines = re.findall(r"^\| `(\S+)` \| (.*) \|$", block("long-tail", RESULTS), re.M)
    names = {model for model, _ in found if model.startswith("dsink-")}
    assert {f"dsink-{changed}" for changed, _ in lines} == names
    for changed, cells in lines:
        expected = behind(found[f"dsink-{changed}", "last"], found["dsink", "last"])
        for measure in ("few", "noisy_corrected"):
            expected += spread(found[f"dsink-{changed}", measure])
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_changes_of_the_solver_are_those_of_the_study():
    found = study("solver")
    of_batch = [f"digits-ratio-10-symmetric-0.4{size}" for size in ("-batch-16", "", "-batch-256")]
    off = collections.defaultdict(list)
    with open(ROOT / "results" / "solver" / "exactness.csv") as file:
        for row in csv.DictReader(file):
            if row["setting"] == of_batch[1]:
                off[row["solver"]].append(100 * float(row["error"]))
    lines = re.findall(r"^\| `(\S+)` \| (.*) \|$", block("solver", RESULTS), re.M)
    names = {model for model, _ in found[of_batch[1]] if model.startswith("dsink-")}
    assert {f"dsink-{changed}" for changed, _ in lines} == names
    for changed, cells in lines:
        expected = [statistics.mean(off[changed])] if changed in off else []
        for setting in of_batch:
            expected += behind(found[setting][f"dsink-{changed}", "last"], found[setting]["dsink", "last"])
        assert numbers_in(cells) == pytest.approx(expected, abs=0.051)


def test_what_the_solver_took_is_that_of_the_main_study():
    found = study("main", ("iterations", "converged", "marginal_error"), empty="nan")
    lines = re.findall(
        r"^\| (\d+), (\w+) (\S+) \| (\d+) \| (\d+) % \| (\S+) \|$", block("solved", RESULTS), re.M
    )
    assert len(lines) == len(found) == 8
    for ratio, noise, rate, *shown in lines:
        models = found[f"digits-ratio-{ratio}-{noise}-{rate}"]
        iterations, converged, error = (
            statistics.mean(models["dsink", measure]) / 100
            for measure in ("iterations", "converged", "marginal_error")
        )
        assert shown == [f"{iterations:.0f}", f"{100 * converged:.0f}", f"{error:.1e}"]


def test_audit_beside_cleanlab_is_that_of_the_results():
    runs = collections.defaultdict(dict)
    with open(ROOT / "results" / "audit" / "audit.csv") as file:
        for row in csv.DictReader(file):
            runs[row["setting"], row["seed"]][row["method"]] = row
    lines = re.findall(r"^\| (\w.*?) \| (.*) \|$", block("audit", AUDIT), re.M)
    measures = ("precision", "recall", "f1", "auroc", "auprc", "proposed")
    assert len(lines) == len(measures)
    for measure, (_, cells) in zip(measures, lines, strict=True):
        shown = [
            (float(mean), int(ahead), int(count))
            for mean, ahead, count in re.findall(r"([-+]\d+\.\d)\D* \((\d+) of (\d+)\)", cells)
        ]
        expected = []
        for data in ("digits", "cifar10"):
            for name in (measure, f"{measure}_tail"):
                gaps = []
                for (setting, _), methods in runs.items():
                    if setting.startswith(data) and methods["audit"][name]:
                        others = [float(row[name]) for method, row in methods.items() if method != "audit"]
                        gaps.append(100 * (float(methods["audit"][name]) - max(others)))
                if gaps:
                    expected.append((statistics.mean(gaps), sum(gap > 0 for gap in gaps), len(gaps)))
        assert expected
        for ours, theirs in zip(shown, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=0.051)


def test_costs_are_those_of_the_benchmark():
    with open(ROOT / "results" / "benchmark" / "benchmark.csv") as file:
        rows = list(csv.DictReader(file))
    known = {f"{float(row[key]):.3g}" for row in rows for key in ("value", "other") if row[key]}
    shown = re.findall(r"([\d.]+) (?:ms|s)\b", block("benchmark"))
    assert len(shown) == 14
    assert {f"{float(number):.3g}" for number in shown} <= known


def test_choice_of_the_noise_robust_model_is_that_of_the_pairs():
    (found,) = study("auxiliaries").values()
    accuracy = {model: statistics.mean(values) for (model, _), values in found.items()}
    combined = collections.defaultdict(list)
    for model, (_, f_N) in STUDIES["auxiliaries"].beside.items():
        combined[f_N.removeprefix("f_N-")].append(accuracy[model])
    shown = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", block("pairs"), re.M)
    assert [name for name, _, _ in shown] == sorted(
        combined, key=lambda name: -statistics.mean(combined[name])
    )
    for name, alone, mean in shown:
        assert float(alone) == pytest.approx(accuracy[f"f_N-{name}"], abs=0.051)
        assert float(mean) == pytest.approx(statistics.mean(combined[name]), abs=0.051)
