"""Figures of studies: what is in them, read back from the files."""

import re

import pandas as pd
import pytest
from study_rows import rows_of

from experiments.study import drawings, records
from experiments.study.catalogue import STUDIES
from experiments.study.measurements import MEASUREMENTS

pytest.importorskip("matplotlib")
_CURVES = ("accuracy", "few", "noisy_corrected", "noisy_memorised")
SETTING = "digits-ratio-10-symmetric-0.4"


def two_seeds(accuracies, setting=SETTING):
    """Rows of models by name, the second seed one point ahead."""
    return pd.DataFrame(
        row
        for model, last in accuracies.items()
        for row in rows_of(model, {0: last, 1: last + 0.01}, setting=setting)
    )


def texts(path):
    """The texts of a figure, which it holds as comments beside their outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def draw(tmp_path, study, rows):
    return {
        name: (texts(tmp_path / name), said) for name, said in drawings.draw(tmp_path, study, "small", rows)
    }


@pytest.mark.parametrize("name", STUDIES)
def test_every_axis_of_every_figure_is_labelled(name, tmp_path, monkeypatch):
    saved = []
    save = drawings.figures.save
    monkeypatch.setattr(
        drawings.figures, "save", lambda figure, path: (saved.append(figure), save(figure, path))
    )
    study = STUDIES[name]
    models = {model.name: 0.5 for one in study.models for model in (*one.needs, one)}
    rows = two_seeds(models, next(iter(study.settings.values()))[0].name)
    key = rows[list(records._KEY)].to_dict("records")
    points = [{**one, "epoch": epoch, **dict.fromkeys(_CURVES, 0.5)} for one in key for epoch in (1, 2)]
    records.merge(tmp_path / "curves.csv", (*records._KEY, "epoch"), pd.DataFrame(points))
    placed = [
        {**one, "image": i, "label": i, "x": float(i), "y": 0.0, "same_class": 0.5}
        for one in key
        for i in range(10)
    ]
    errors = [
        {**key[0], "batch_size": size, "marginal": "batch", "error": 0.1, "noisy_corrected": 0.5}
        for size in (8, 16)
    ]
    exact = [{**key[0], "error": 0.1, "solver": solver} for solver in ("default", "epsilon=1")]
    shares = [
        {**one, "kind": kind, "class": number, "share": 0.5}
        for one in key
        for kind in "ab"
        for number in (0, 1)
    ]
    measured_rows = {"features": placed, "allocation": errors, "exactness": exact, "class-shares": shares}
    for measured, found in measured_rows.items():
        file, of_row, _ = MEASUREMENTS[measured]
        records.merge(tmp_path / file, (*records.PLACE, *of_row), pd.DataFrame(found))
    drawn = drawings.draw(tmp_path, study, "small", rows)
    assert len(drawn) == len(saved) >= len(study.figures) > 0
    assert all(said and "\n" not in said for _, said in drawn)
    assert not [name for name, _ in drawn if "<image" in (tmp_path / name).read_text()]  # shapes, no pixels
    for axes in (axes for figure in saved for axes in figure.axes if axes.get_visible()):
        assert axes.get_xlabel() and axes.get_ylabel()


def test_many_models_are_rows_and_few_are_colours(tmp_path):
    study = STUDIES["naive"]
    many = {f"model_{i}": 0.5 for i in range(9)}
    figure, _ = draw(tmp_path, study, pd.concat([two_seeds(many), two_seeds(many, "another")]))[
        "accuracy-small.svg"
    ]
    assert figure.index("model_0") < figure.index("model") and {SETTING, "another"} <= set(figure)
    few = dict(list(many.items())[:8])
    figure, said = draw(tmp_path, study, pd.concat([two_seeds(few), two_seeds(few, "another")]))[
        "accuracy-small.svg"
    ]
    assert "corrupted set" in figure and "model" not in figure
    assert said == "test accuracy of 8 models in 2 settings, a point for each seed"


def test_worse_auxiliaries_are_panels_by_how_they_were_made_worse(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        drawings.figures, "lines_figure", lambda panels, path, **how: shown.update(panels=panels, **how)
    )
    accuracies = {
        **{"f_L-logit_adjustment": 0.6, "f_N-elr": 0.8, "dsink": 0.88, "logit_adjustment": 0.62},
        **{"f_N-elr-data=0.1": 0.3, "dsink-f_N=elr-data=0.1": 0.5},
        **{"f_L-logit_adjustment-noise=0.5": 0.4, "dsink-f_L=logit_adjustment-noise=0.5": 0.86},
        **{"f_N-elr-noise=0.5": 0.45, "f_N-elr-noise=0.5-draw=1": 0.5},
        "dsink-f_L=logit_adjustment-noise=0.5-f_N=elr-noise=0.5": 0.7,
        "dsink-f_L=logit_adjustment-noise=0.5-f_N=elr-noise=0.5-draw=1": 0.65,
    }
    drawings.draw(tmp_path, STUDIES["teacher-quality"], "small", two_seeds(accuracies))
    epochs, data, noise = shown["panels"].values()
    assert shown["level"] == 0.0 and not epochs

    def points(line):
        x, y, band = line
        assert band == pytest.approx([0.0] * len(x), abs=1e-9)  # both seeds are one point apart in all
        return dict(zip(x, (round(value, 6) for value in y), strict=True))

    # By hand: less the best of the two and the base; 80 % where f_N is intact, else the base's 62.
    assert {name: points(line) for name, line in data.items()} == {"worse: f_N": {0.1: -12.0, 1.0: 8.0}}
    assert {name: points(line) for name, line in noise.items()} == {
        "worse: f_L": {0.0: 8.0, 0.5: 6.0},
        "worse: both, on the same": {0.0: 8.0, 0.5: 8.0},
        "worse: both, each on its own": {0.0: 8.0, 0.5: 3.0},
    }
