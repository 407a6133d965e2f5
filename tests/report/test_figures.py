"""What all figures owe their readers: colours told apart by people of any colour vision, axes with names."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from dsink_jax.report import canvas, write_report
from run_pages import write_whole_run

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISIONS = {
    "usual": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour, vision):
    """CIELAB of an sRGB colour as that vision has it."""
    share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.asarray(VISIONS[vision]) @ linear, 0, 1) / TO_XYZ.sum(1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def closest(colours, vision):
    """Distance of the two colours that are hardest to tell apart; about 2 is the least that is seen."""
    pairs = itertools.combinations(colours, 2)
    return min(np.linalg.norm(lab(one, vision) - lab(other, vision)) for one, other in pairs)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("colours", [canvas.PALETTE, canvas.CLASSES], ids=["models", "classes"])
def test_colours_are_told_apart(colours, vision):
    assert len(set(colours)) == len(colours)
    assert closest(colours, vision) > 15


def test_red_and_green_are_not_told_apart_by_all():
    assert lab("#ffffff", "usual") == pytest.approx([100, 0, 0], abs=0.01)
    assert closest(("#d62728", "#2ca02c"), "usual") > 90
    assert closest(("#d62728", "#2ca02c"), "no green cones") < 10


def test_every_axis_of_the_run_page_is_labelled(tmp_path, monkeypatch):
    drawn = {}
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, path, **how: (drawn.update({path.stem: figure}), save(figure, path, **how)),
    )
    write_report(write_whole_run(tmp_path))
    assert set(drawn) == {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"sinkhorn", "batch_shares", "confusion_matrix"} <= set(drawn)
    for axes in (axes for figure in drawn.values() for axes in figure.axes if axes.get_visible()):
        bar = axes.get_label() == "<colorbar>"
        assert (axes.get_xlabel() or bar) and axes.get_ylabel(), axes.get_title()
