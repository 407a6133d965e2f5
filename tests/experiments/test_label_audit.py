"""The comparison of the audit with cleanlab: its measures by hand, its features, and a small one whole."""

import csv

import numpy as np
import pandas as pd
import pytest

from dsink_jax.errors import InputError
from experiments import label_audit
from experiments.embedded import Task
from experiments.environments import environment_here, identify, remember
from experiments.label_audit import Flags, measures, write_table
from experiments.patch_features import PatchEncoder, learn_patch_encoder


def test_measures_by_hand():
    given = np.array([0, 0, 0, 1, 1, 2])
    true = np.array([0, 0, 1, 1, 0, 2])
    task = Task(np.zeros((6, 1)), given, true)
    score = np.array([0.1, 0.2, 0.9, 0.3, 0.25, 0.4])
    flagged = np.array([False, False, True, True, False, False])
    row = measures(task, score, flagged, np.array([0, 0, 1, 1, 1, 2]))
    # Wrong are the third and the fifth, of scores 0.9 (above all four others) and 0.25 (above two).
    assert row["wrong"] == pytest.approx(2 / 6)
    assert row["auroc"] == pytest.approx((4 + 2) / 8)
    assert row["auprc"] == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert row["proposed"] == pytest.approx(5 / 6)


def test_tail_is_the_rarest_third_by_true_or_given_label():
    true = np.array([0, 0, 0, 1, 1, 2])
    given = np.array([0, 2, 0, 1, 1, 0])
    assert Task(np.zeros((6, 1)), given, true).tail.tolist() == [False, True, False, False, False, True]
    assert not Task(np.zeros((6, 1)), given, np.arange(6) % 3).tail.any()


def test_patch_features_written_out():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 6, 7, 2)).astype(np.uint8)
    size, count = 3, 5
    encoder = PatchEncoder(
        size, *(rng.normal(size=shape).astype(np.float32) for shape in ((18,), (18, 18), (count, 18)))
    )
    expected = np.zeros((3, 2, 2, count))
    for i in range(3):
        for r in range(4):
            for c in range(5):
                patch = images[i, r : r + size, c : c + size].astype(float).ravel()
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
                patch = (patch - encoder.mean) @ encoder.whitening
                distance = np.linalg.norm(patch - encoder.centroids, axis=1)
                expected[i, int(r >= 2), int(c >= 2)] += np.maximum(distance.mean() - distance, 0)
    np.testing.assert_allclose(encoder(images), expected.reshape(3, -1), rtol=1e-3, atol=1e-3)


def test_patch_encoder_whitens():
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(40, 10, 10, 1)).cumsum(1).cumsum(2)
    images = (40 * (smooth - smooth.min()) / np.ptp(smooth) * 6).astype(np.uint8)
    encoder = learn_patch_encoder(images, centroids=4, size=3, patches=2000)
    assert encoder(images).shape == (40, 16)
    np.testing.assert_allclose(encoder.whitening, encoder.whitening.T, atol=1e-4)


@pytest.mark.slow
def test_a_small_comparison_goes_on_where_it_stopped(tmp_path, monkeypatch):
    pytest.importorskip("cleanlab")
    monkeypatch.setattr(label_audit, "_DIGITS", label_audit._DIGITS[:1])
    monkeypatch.setattr("sys.argv", ["label_audit", "--seeds", "7", "--output", str(tmp_path)])
    label_audit.main()
    with open(tmp_path / "audit.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"].split(",")[0] for row in rows] == [
        "audit",
        *["cleanlab on f_N"] * 2,
        *["cleanlab on logistic regression"] * 4,  # plain and balanced
    ]
    for row in rows:
        assert 0.5 < float(row["auroc"]) <= 1
    before = (tmp_path / "audit.csv").read_bytes()
    monkeypatch.setattr(label_audit, "compare", None)  # not to be called again
    label_audit.main()
    assert (tmp_path / "audit.csv").read_bytes() == before
    assert "digits-ratio-10-symmetric-0.4" in (tmp_path / "audit.md").read_text()


def test_table_says_where_the_audit_is_behind(tmp_path):
    environment = environment_here()
    remember(tmp_path, [environment])

    def row(seed, method, auroc):
        return dict.fromkeys(label_audit.FIELDS) | {
            **{"setting": "s", "seed": seed, "method": method, "examples": 9, "wrong": 0.5, "auroc": auroc},
            **{"seconds": 1.0, "environment": identify(environment)},
        }

    rows = [row(0, "audit", 0.9), row(0, "cleanlab", 0.8), row(1, "audit", 0.7), row(1, "cleanlab", 0.9)]
    write_table(tmp_path, pd.DataFrame(rows))
    text = (tmp_path / "audit.md").read_text()
    assert "-5.0 ± 190.6 (1 of 2)" in text  # differences of 10 and -20: 12.706 * 15
    assert "80.0 ± 14.1" in text
    assert environment["device"] in text


def test_cleanlab_has_to_be_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "\.\[experiments\]"'):
        Flags()
