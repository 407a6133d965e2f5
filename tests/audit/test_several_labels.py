"""Missing and spurious labels: each label as a problem of two classes, from files to the table."""

import csv

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from dsink_jax import InputError, audit
from dsink_jax.audit.__main__ import flags_of, run

LABELS, FEATURES = 4, 12
NAMES = ("dog", "ball", "tree", "sea")


def several(count=900, seed=0, missing=0.3):
    """Features, true labels, and those given: some missing, as many more."""
    weights = np.random.default_rng(0).standard_normal((FEATURES, LABELS))
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, FEATURES))
    true = features @ weights + np.linspace(1, -4, LABELS) > 0
    given = true & (rng.random(true.shape) > missing)
    given |= rng.random(true.shape) < missing * true.mean(0)
    return features, true.astype(int), given.astype(int)


def logits_of(true, seed=0, sharpness=3.0):
    rng = np.random.default_rng(seed)
    return sharpness * (2 * true - 1) + rng.normal(size=(2, *true.shape))


def test_each_label_is_a_problem_of_two_classes():
    _, true, given = several()
    models = logits_of(true)
    found = audit.find_multilabel_errors(given, *models)
    for c in range(LABELS):
        pairs = [np.stack([np.zeros(len(given)), logits[:, c]], 1) for logits in models]
        alone = audit.find_label_errors(given[:, c], *pairs)
        np.testing.assert_array_equal(found.wrong_probability[:, c], alone.wrong_probability)
        np.testing.assert_array_equal(found.probabilities[:, c], alone.probabilities[:, 1])
        np.testing.assert_array_equal(found.surrogate_labels[:, c], alone.surrogate_labels[:, 1])
        assert found.label_shares[c] == alone.class_marginal[1]
        np.testing.assert_allclose(
            (found.missing_rates[c], found.spurious_rates[c]), (alone.noise[1, 0], alone.noise[0, 1])
        )
    # What is known of the noise is found: a third is missing, and of those without as many are given.
    np.testing.assert_allclose(found.label_shares, true.mean(0), atol=0.05)
    wrong = given != true
    assert average_precision_score(wrong.ravel(), found.wrong_probability.ravel()) > 0.95
    assert not (found.is_missing & (given == 1)).any() and not (found.is_spurious & (given == 0)).any()
    assert ((found.is_missing | found.is_spurious) == (found.wrong_probability > 0.5)).all()
    order = found.wrong_probability[tuple(found.ranking.T)]
    assert (np.diff(order) <= 0).all() and len(np.unique(found.ranking, axis=0)) == wrong.size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, z: (y[:, :2], z, z), "one shape"),
        (lambda y, z: (y, z, z[:-1]), "one shape"),
        (lambda y, z: (y + 1, z, z), "must be 0 and 1"),
        (lambda y, z: (y * 1.0, z, z), "integers or bool"),
        (lambda y, z: (y, z, np.where(y, np.nan, z)), "NaN"),
    ],
)
def test_bad_input_is_named(change, said):
    _, true, given = several(40)
    with pytest.raises(InputError, match=said):
        audit.find_multilabel_errors(*change(given, logits_of(true)[0]))


def write_table(path, features, given, how):
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        labels = ["label"] if how == "separator" else NAMES
        rows.writerow(["id", *(f"x{i}" for i in range(FEATURES)), *labels])
        for number, (vector, row) in enumerate(zip(features, given, strict=True)):
            names = [name for name, has in zip(NAMES, row, strict=True) if has]
            rows.writerow([f"e{number}", *vector, *(["; ".join(names)] if how == "separator" else row)])


HOW = {"separator": ["--label-separator", ";"], "columns": ["--label-columns", *NAMES], "arrays": []}


@pytest.mark.parametrize("how", HOW)
def test_the_command_finds_missing_and_spurious_labels(how, tmp_path, capsys):
    features, true, given = several()
    path = tmp_path / ("data.npz" if how == "arrays" else "data.csv")
    if how == "arrays":
        np.savez(path, features=features, labels=given, class_names=NAMES)
    else:
        write_table(path, features, given, how)
    asked = [str(path), *HOW[how], "--epochs", "40", "--quiet"]
    assert run(flags_of([*asked, "--fail-above", "0.05"])) == 1  # of the 3,600 more are wrong
    out = capsys.readouterr().out
    assert f"900 examples with {given.sum():,} labels" in out and "probably missing" in out
    with open(path.with_name(f"{path.name}-audit") / "labels.csv", newline="") as file:
        table = list(csv.DictReader(file))
    wrong = {(row["example"], row["label"]) for row in table if row["wrong"] == "yes"}
    prefix = "" if how == "arrays" else "e"
    truly = {(f"{prefix}{i}", NAMES[c]) for i, c in np.argwhere(true != given)}
    assert len(wrong & truly) > 0.8 * len(wrong) and len(wrong & truly) > 0.6 * len(truly)
    # Every given label is there, with what it should be.
    rows = {(row["example"], row["label"]): row for row in table}
    assert {(f"{prefix}{i}", NAMES[c]) for i, c in np.argwhere(given)} <= rows.keys()
    assert all((row["given"] != row["proposed"]) == (row["wrong"] == "yes") for row in table)
    ranked = [float(row["wrong_probability"]) for row in table]
    assert ranked == sorted(ranked, reverse=True)
    page = (path.with_name(f"{path.name}-audit") / "labels.html").read_text()
    assert "<td>missing</td>" in page and "<td>spurious</td>" in page


@pytest.mark.parametrize("separator", [" ", "|", " / "])
def test_any_separator(separator, tmp_path):
    lines = [[], ["a"], ["b", "a"], ["c"]]
    rows = [f"{i}.5,{separator.join(labels)}" for i, labels in enumerate(lines)]
    (tmp_path / "data.csv").write_text("\n".join(["x,label", *rows, ""]))
    data = audit.read(tmp_path / "data.csv", label_separator=separator)
    assert data.class_names == ("a", "b", "c")
    assert data.labels.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_a_line_may_have_no_label(tmp_path):
    features, _, given = several(30)
    given[3] = 0
    write_table(tmp_path / "data.csv", features, given, "separator")
    data = audit.read(tmp_path / "data.csv", label_separator=";")
    assert data.class_names == tuple(sorted(NAMES)) and data.labels[3].sum() == 0
    order = [NAMES.index(name) for name in data.class_names]
    np.testing.assert_array_equal(data.labels, given[:, order])


BAD = {
    "no such column": (["--label-columns", "dog", "cat"], "has no column 'cat'"),
    "a column of other numbers": (["--label-columns", "dog", "x1"], "column 'x1' must be 0 or 1"),
    "both": (["--label-columns", "dog", "--label-separator", ";"], "Give one of"),
    "an empty separator": (["--label-separator", ""], "one character at least"),
    "a column twice": (["--label-columns", "dog", "dog"], "twice: dog, dog"),
    "one column": (["--label-columns", "dog"], "of one, give"),
    "known share": (["--label-columns", *NAMES, "--known-share", "0.5"], "one label an example"),
    "a method for one label": (["--label-columns", *NAMES, "--noise-method", "gce"], None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_flags_are_named(name, tmp_path):
    features, _, given = several(60)
    write_table(tmp_path / "data.csv", features, given, "columns")
    flags, said = BAD[name]
    asked = [str(tmp_path / "data.csv"), *flags, "--epochs", "1", "--quiet"]
    if said is None:  # has a form for several
        assert run(flags_of(asked)) == 0
        return
    with pytest.raises(InputError, match=said):
        run(flags_of(asked))
