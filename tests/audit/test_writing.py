"""What is written of a finding: the table, the page, the summary and the cautions."""

import csv

import numpy as np
import pytest

from dsink_jax import audit
from dsink_jax.errors import InputError


def test_names_are_escaped_on_the_page():
    labels, numbers = np.repeat([0, 1], 10), map(str, range(19))
    data = audit.Labelled(np.zeros((20, 3)), labels, ("<b>", "c&d"), ("<script>", *numbers))
    sure = np.log([[0.01, 0.99]] + [[0.99, 0.01]] * 9 + [[0.01, 0.99]] * 10)
    found = audit.find_label_errors(data.labels, sure, sure)
    page = audit.page(data, found, "a < b")
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;" in page and "a &lt; b" in page


def labelled(labels):
    labels = np.array(labels)
    names = tuple(map(str, range(len(labels))))
    return audit.Labelled(
        np.arange(len(labels))[:, None] / 7, labels, tuple("abc"[: labels.max() + 1]), names
    )


def test_a_wrong_label_is_never_proposed_again():
    """Of 0.45, 0.35 and 0.2 the given label is wrong by 0.55 and the most probable all the same."""
    data = labelled([0, 1, 2])
    probabilities = np.array([[0.45, 0.35, 0.2], [0.1, 0.9, 0], [0.7, 0.1, 0.2]], np.float32)
    given = probabilities[range(3), data.labels]
    found = audit.LabelErrors(
        1 - given, probabilities.argmax(1), probabilities.max(1), probabilities, *[np.zeros(0)] * 3
    )
    rows = {row["example"]: row for row in csv.DictReader(audit.table(data, found).splitlines())}
    assert [rows[i]["wrong"] for i in "012"] == ["yes", "no", "yes"]
    assert [rows[i]["proposed"] for i in "012"] == ["b", "b", "a"]
    assert [rows[i]["confidence"] for i in "012"] == ["0.3500", "0.9000", "0.7000"]
    assert "<td>0</td><td>a</td><td>b</td>" in audit.page(data, found, "")


def test_what_cannot_be_judged_is_said_to_be_unknown():
    data = labelled([0, 0, 0, 1, 1, 2])
    knowing = 5.0 * np.eye(3)[[0, 0, 0, 1, 1, 1]]
    found = audit.find_label_errors(data.labels, knowing, knowing, judged=np.arange(6) < 5)
    assert np.isnan(found.wrong_probability).tolist() == [False] * 5 + [True]
    assert found.ranking[-1] == 5 and not found.is_wrong[5]
    rows = list(csv.DictReader(audit.table(data, found).splitlines()))
    assert rows[-1] == {
        **{"rank": "6", "example": "5", "given": "c", "proposed": "c"},
        **{"wrong_probability": "", "confidence": "", "wrong": "unknown"},
    }
    assert [row["wrong"] for row in rows[:5]] == ["no"] * 5
    assert "nan" not in audit.summary(data, found) + audit.page(data, found, "")
    with pytest.raises(InputError, match="one bool for each of 6"):
        audit.find_label_errors(data.labels, knowing, knowing, judged=np.ones(5, bool))


@pytest.mark.parametrize(
    "pair",
    [
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "cat\u200b"),
        ("cat", "\ufeffcat"),
        ("cat", "\uff43\uff41\uff54"),
        ("1", "1.0"),
        ("True", "TRUE"),
    ],
)
def test_classes_that_look_alike_are_named(pair):
    labels, knowing = np.array([0, 1] * 5), 5 * np.eye(2)[[0, 1] * 5]
    data = audit.Labelled(np.arange(10)[:, None] / 7, labels, pair, tuple(map(str, range(10))))
    found = audit.find_label_errors(labels, knowing, knowing)
    (said,) = audit.cautions(data, found, knowing, folds=2)
    assert all(repr(name) in said for name in pair)
    other = data._replace(class_names=("cat", "cats"))
    assert audit.cautions(other, found, knowing, folds=2) == []


def away(inputs, columns=()):
    """What is said of 300 examples of three classes, 45 labels of them wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    given = np.where(np.arange(300) % 20 < 3, (true + 1) % 3, true)
    features = 3 * np.eye(3)[true] + rng.normal(size=(300, 3))
    data = audit.Labelled(
        np.column_stack([features, *inputs(given)]),
        given,
        ("a", "b", "c"),
        tuple(map(str, range(300))),
        columns,
    )
    knowing = 3.0 * np.eye(3)[true]
    found = audit.find_label_errors(given, knowing, knowing)
    return audit.cautions(data, found, knowing, folds=5)


def test_columns_that_give_the_labels_away_are_named():
    assert away(lambda given: []) == []
    (said,) = away(lambda given: [given * 10 + 7], ("x", "y", "z", "label_id"))
    assert "nearly without error from 'label_id'. If" in said
    (said,) = away(lambda given: list(np.eye(3)[given].T), ("x", "y", "z", "is a", "is b", "is c"))
    assert "'is " in said and "'x'" not in said
    (said,) = away(lambda given: [given])
    assert "from feature 3." in said
    # A tenth of it is noise: that may be a feature as any other.
    assert away(lambda given: [np.where(np.arange(300) % 10, given, 1)]) == []


def test_copies_are_told_and_those_with_different_labels_named():
    data = labelled([0, 0, 1, 1, 0, 1])._replace(inputs=np.array([[1], [2], [1], [3], [2], [4.0]]))
    knowing = 5 * np.eye(2)[data.labels]
    found = audit.find_label_errors(data.labels, knowing, knowing)
    copies, differing = audit.cautions(data, found, knowing, folds=1)
    assert copies.startswith("2 examples are copies of others.")
    assert differing == "Copies with different labels, of which one at least is wrong: 0, 2."


def test_what_was_left_out_is_said():
    data = labelled([0, 0, 1, 1])._replace(notes=("Files left out: 2 .heic.",))
    knowing = 5 * np.eye(2)[data.labels]
    found = audit.find_label_errors(data.labels, knowing, knowing)
    assert audit.cautions(data, found, knowing, folds=1) == ["Files left out: 2 .heic."]


def test_examples_of_no_class_are_told_from_wrong_labels():
    data = labelled([0, 0, 1, 1, 2, 2])
    probabilities = np.full((6, 3), 0.05, np.float32)
    probabilities[range(6), [0, 1, 1, 1, 2, 2]] = 0.9
    known = np.float32([0.9, 0.9, 0.2, 0.9, 0.9, 0.1])
    wrong = 1 - known * probabilities[range(6), data.labels]
    wrong[5] = np.nan  # not judged
    best = probabilities.argmax(1), probabilities.max(1)
    found = audit.LabelErrors(wrong, *best, probabilities, *[np.zeros(0)] * 3, known)
    rows = {row["example"]: row for row in csv.DictReader(audit.table(data, found).splitlines())}
    assert [rows[i]["proposed"] for i in "012345"] == ["a", "b", "none of these", "b", "c", "c"]
    assert [rows[i]["wrong"] for i in "012345"] == ["no", "yes", "yes", "no", "no", "unknown"]
    assert [rows[i]["known"] for i in "0125"] == ["0.9000", "0.9000", "0.2000", "0.1000"]
    assert [rows[i]["confidence"] for i in "012"] == ["0.8100", "0.8100", "0.8000"]
    summary, page = audit.summary(data, found), audit.page(data, found, "")
    assert "1 of these examples are probably of none of the classes; expected in all: 35.0 %" in summary
    assert "probably of none of the classes" in page and "<td>none of these</td>" in page
    # Of the examples each class has its known part: 0.9 * (0.9 + 5 * 0.05) and so on.
    true = (known[:, None] * probabilities).sum(0)
    assert [row[-1] for row in audit.by_class(data, found)] == [f"{number:,.0f}" for number in true]


def test_what_speaks_against_a_finding():
    data = labelled([0, 0, 0, 1, 1, 2])
    knowing = 5 * np.eye(3)[data.labels]
    found = audit.find_label_errors(data.labels, knowing, knowing)
    assert audit.cautions(data, found, knowing, folds=1) == []
    (few,) = audit.cautions(data, found, knowing, folds=3)
    assert "fewer than the 3 folds" in few and few.endswith(": b, c.")
    assert few in audit.page(data, found, "", cautions=[few])
    (ignorant,) = audit.cautions(data, found, np.eye(3)[[0] * 6], folds=1)
    assert "50.0 % of the given labels" in ignorant and "Train longer" in ignorant


def test_a_class_that_f_n_has_given_up_is_doubted():
    data = labelled([0] * 20 + [1] * 15 + [2] * 5)
    blind = 8.0 * np.eye(3)[[0] * 20 + [1] * 15 + [0] * 5]
    found = audit.find_label_errors(data.labels, blind, blind)
    assert found.is_wrong[-5:].all() and not found.is_wrong[:-5].any()
    (doubt,) = audit.cautions(data, found, blind, folds=5)
    assert "hardly predicts these classes: c. Either" in doubt and "noise_method=" in doubt
    assert audit.cautions(data, found, blind, folds=6) != [doubt]  # too few to say more than that


def test_names_that_are_meant_to_be_one_are_named():
    data = labelled([0, 1, 2, 0, 1, 2])._replace(
        class_names=("dog", "hot  Dog", "Hot dog"), names=("u1", "u2", "u1", "u3", "u4", "u5")
    )
    sure = 5.0 * np.eye(3)[data.labels]
    ids, classes = audit.cautions(data, audit.find_label_errors(data.labels, sure, sure), sure, folds=2)
    assert ids == "Several examples have the same id: u1."
    assert classes.endswith(": 'hot  Dog' and 'Hot dog'.") and "capitals, spaces" in classes
