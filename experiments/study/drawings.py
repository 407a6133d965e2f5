"""The figures of studies, by the names that studies list, from the rows of the CSV files alone."""

import math
import pathlib
import re
from collections.abc import Callable

import pandas as pd

from dsink_jax.report import figures
from experiments.study import beside, records
from experiments.study.catalogue import Study
from experiments.study.models import DEFAULT_ALPHA, DEFAULT_BASE

# Draws one figure of one budget into a folder: file names with text for those who do not see them.
Draw = Callable[[pathlib.Path, Study, str, pd.DataFrame], list[tuple[str, str]]]

# More models than that are rows of a figure and not colours.
_MOST_COLOURS = 8


def draw(folder: pathlib.Path, study: Study, budget: str, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Draws all figures of a study for one budget; (file name, alternative text) of each."""
    return [drawn for name in study.figures for drawn in FIGURES[name](folder, study, budget, rows)]


def _accuracy(folder, study, budget, rows):
    """Accuracy of each model: a group for each setting, or for each model where these are many."""
    path = folder / f"accuracy-{budget}.svg"
    settings, models = _names(rows, "setting"), _names(rows, "model")
    label = "test accuracy (%)"
    if len(models) > _MOST_COLOURS or len(settings) == 1:
        values = _points(rows, "setting", "model", "last")
        figures.points_figure(values, models, path, value_label=label, group_label="model")
    else:
        values = _points(rows, "model", "setting", "last")
        figures.points_figure(values, settings, path, value_label=label, group_label="corrupted set")
    shown = (
        f"test accuracy of {_count(models, 'model')} in {_count(settings, 'setting')}, a point for each seed"
    )
    return [(path.name, shown)]


def _points(rows, by, group, measure):
    """Percent of a measure for each `by`: a list for each `group`."""
    groups, percent = _names(rows, group), 100 * rows[measure]
    found = percent.groupby([rows[by], rows[group]]).agg(list)
    return {name: [found.get((name, one), []) for one in groups] for name in _names(rows, by)}


def _count(names, word):
    return f"{len(names)} {word}{'s' * (len(names) != 1)}"


def _curves(folder, study, budget, rows):
    """Test accuracy over the epochs, a figure for each setting."""
    return _over_epochs(folder, budget, rows, "accuracy", "test accuracy (%)")


def _correction(folder, study, budget, rows):
    """Shares of wrong labels that are corrected and memorised over the epochs."""
    return [
        *_over_epochs(folder, budget, rows, "noisy_corrected", "wrong labels corrected (%)"),
        *_over_epochs(folder, budget, rows, "noisy_memorised", "wrong labels memorised (%)"),
    ]


def _over_epochs(folder, budget, rows, measure, label):
    points = records.read(folder, "curves.csv", budget)
    if points.empty:
        return []
    path = folder / f"{measure.replace('_', '-')}-over-epochs-{budget}.svg"
    models = [name for name in _names(rows, "model") if name in set(points["model"])]
    panels = {}
    for setting in _names(rows, "setting"):
        lines = _lines(points[points["setting"] == setting], "model", "epoch", measure)
        panels[setting] = {model: lines[model] for model in models if model in lines}
    figures.lines_figure(panels, path, x_label="epoch", y_label=label)
    shown = f"{label} over the epochs, mean and standard deviation over seeds: {', '.join(models)}"
    return [(path.name, shown)]


def _lines(rows, by, x, measure, scale=100):
    """A line for each `by` that has values of a measure, in percent or at another scale."""
    values = scale * rows.set_index(x)[measure]
    lines = {name: _line(values[(rows[by] == name).to_numpy()]) for name in _names(rows, by)}
    return {name: line for name, line in lines.items() if line[0]}


def _line(values):
    """A line with its band: x, the index, in order, the means of the values there, standard deviations."""
    found = values.dropna().groupby(level=0).agg(["mean", "std"]).fillna(0.0)
    return found.index.tolist(), *found.T.to_numpy().tolist()


def _alpha(folder, study, budget, rows):
    """Accuracy over alpha, a line for each base."""
    path = folder / f"alpha-{budget}.svg"
    given = []
    for model in _names(rows, "model"):
        kind, *parts = model.split("-")
        options = dict(part.split("=") for part in parts if "=" in part)
        if kind == "dsink" and options.keys() <= {"alpha", "base"}:
            base = f"base {options.get('base', DEFAULT_BASE)}"
            given.append((model, base, float(options.get("alpha", DEFAULT_ALPHA))))
    shown = rows.merge(pd.DataFrame(given, columns=["model", "base", "alpha"]), on="model")
    panel = _lines(shown, "base", "alpha", "last")
    figures.lines_figure({"": panel}, path, x_label="alpha", y_label="test accuracy (%)", x_log=True)
    shown = f"test accuracy over alpha, mean and standard deviation over seeds: {', '.join(panel)}"
    return [(path.name, shown)]


def _bases(folder, study, budget, rows):
    """What D-SINK adds to each base."""
    path = folder / f"bases-{budget}.svg"
    bases = [name for name in _names(rows, "model") if not name.startswith(("dsink", "f_L", "f_N"))]
    percent = (100 * rows["last"]).groupby(rows["model"]).agg(list)
    named = ("dsink" if base == DEFAULT_BASE else f"dsink-base={base}" for base in bases)
    values = {
        "base alone": [percent[base] for base in bases],
        "D-SINK on it": [percent.get(name, []) for name in named],
    }
    figures.points_figure(values, bases, path, value_label="test accuracy (%)", group_label="base")
    return [(path.name, f"test accuracy of {', '.join(bases)} alone and with D-SINK, a point for each seed")]


def _pairs(folder, study, budget, rows):
    """How far D-SINK is ahead of the better of its two parts, for every pair."""
    drawn = []
    for setting, of_setting in rows.groupby("setting", sort=False):
        pairs = beside.beside(study, of_setting)
        if not pairs:
            continue
        points = {pair.others: pair.ahead.mean for pair in pairs}
        f_L, f_N = (list(dict.fromkeys(names)) for names in zip(*points, strict=True))
        cells = [[points.get((one, other), math.nan) for other in f_N] for one in f_L]
        path = folder / f"pairs-{setting}.svg"
        title = "accuracy of D-SINK less that of the better of f_L and f_N (points)"
        rows_of, columns_of = ([name.partition("-")[2] for name in names] for names in (f_L, f_N))
        figures.heat_map_figure(
            cells, rows_of, columns_of, path, row_label="f_L", column_label="f_N", title=title
        )
        drawn.append((path.name, f"{setting}: {title}"))
    return drawn


def _quality(folder, study, budget, rows):
    """How far D-SINK is ahead of its auxiliaries and its base as those get worse, a panel for each way."""
    path = folder / f"quality-{budget}.svg"
    undamaged, lines = {}, {way: {} for way in _WORSE}
    for pair in beside.beside(study, rows):
        points = 100 * (pair.accuracies[pair.model] - pair.best)
        found = re.findall(r"(f_[NL])=[a-z_]+-(epochs|data|noise)=([0-9.]+)", pair.model)
        if not found:
            undamaged = {way: {intact: points} for way, (_, intact) in _WORSE.items()}
            continue
        (which, way, strength), *others = found
        if others:
            apart = "each on its own" if pair.model.endswith("draw=1") else "on the same"
            which = "both" if way == "epochs" else f"both, {apart}"
        lines[way].setdefault(f"worse: {which}", {})[float(strength)] = points
    panels = {
        title: {
            which: _line(pd.concat({**undamaged.get(way, {}), **values}))
            for which, values in lines[way].items()
        }
        for way, (title, _) in _WORSE.items()
    }
    label = "ahead of the best of f_L,\nf_N and the base (points)"
    figures.lines_figure(panels, path, x_label="share", y_label=label, level=0.0)
    shown = (
        "points by which D-SINK is ahead of the best of its auxiliaries and its base as the auxiliaries get"
    )
    return [(path.name, f"{shown} worse, by the epochs, the data and the labels that they have")]


# Ways to make an auxiliary worse: the title of the panel, and the share at which it is as good as ever.
_WORSE = {
    "epochs": ("trained for this share of the epochs", 1.0),
    "data": ("trained on this share of the data", 1.0),
    "noise": ("this share of the labels made random", 0.0),
}


def _features(folder, study, budget, rows):
    """t-SNE of the features of each model, for the first seed of each setting.

    Which model is the strongest that is no D-SINK differs from seed to seed: together they are one panel.
    """
    points = records.read(folder, "features.csv", budget)
    drawn = []
    for setting, of_setting in points.groupby("setting", sort=False):
        seed = of_setting["seed"].iloc[0]
        panels = {}
        for which, of_panel in of_setting.groupby(of_setting["model"].map(_panel), sort=False):
            same = 100 * of_panel["same_class"].mean()
            shown = of_panel[of_panel["seed"] == seed]
            named = which or f"the best without D-SINK, here {shown['model'].iloc[0]}"
            seeds = _count(_names(of_panel, "seed"), "seed")
            title = f"{named}\n{same:.0f} % of neighbours alike, mean of {seeds}"
            panels[title] = list(shown[["x", "y", "label"]].itertuples(index=False, name=None))
        path = folder / f"features-{setting}.svg"
        figures.classes_figure(panels, path, x_label="t-SNE 1", y_label="t-SNE 2")
        shown = "; ".join(title.replace("\n", ", ") for title in panels)
        drawn.append((path.name, f"t-SNE of test images, {setting}, seed {seed}: {shown}"))
    return drawn


def _panel(model):
    """The panel of a model; that of the strongest without D-SINK has no name."""
    return model if model in ("cross_entropy", "dsink") else ""


def _allocation(folder, study, budget, rows):
    """Error of the surrogate labels over the batch size."""
    points = records.read(folder, "allocation.csv", budget)
    if points.empty:
        return []
    lines = _lines(points, "marginal", "batch_size", "error", scale=1)
    panel = {kind: (sizes, errors) for kind, (sizes, errors, _) in lines.items()}
    path = folder / f"allocation-{budget}.svg"
    label = "total variation to Q of the whole set"
    figures.lines_figure({"": panel}, path, x_label="batch size", y_label=label, x_log=True)
    return [(path.name, f"{label} over the batch size, with the marginal of: {', '.join(panel)}")]


def _exactness(folder, study, budget, rows):
    """Error of the surrogate labels by the settings of the solver."""
    points = records.read(folder, "exactness.csv", budget)
    if points.empty:
        return []
    solvers = _names(points, "solver")
    path = folder / f"exactness-{budget}.svg"
    label = "total variation to the exact Q of the batch (%)"
    values = _points(points, "setting", "solver", "error")
    figures.points_figure(values, solvers, path, value_label=label, group_label="solver")
    return [(path.name, f"{label} with {', '.join(solvers)}, a point for each seed")]


def _class_shares(folder, study, budget, rows):
    """Shares of the classes by labels and by models, mean over the seeds with their standard deviation."""
    points = records.read(folder, "class_shares.csv", budget)
    if points.empty:
        return []
    by_setting = points.groupby("setting", sort=False)
    panels = {setting: _lines(here, "kind", "class", "share") for setting, here in by_setting}
    path = folder / f"class-shares-{budget}.svg"
    label = "share of the training images (%)"
    figures.lines_figure(panels, path, x_label="class", y_label=label, x_whole=True)
    kinds = ", ".join(_names(points, "kind"))
    return [(path.name, f"{label} by class, according to: {kinds}")]


def _names(rows, field):
    return rows[field].unique().tolist()


FIGURES: dict[str, Draw] = {
    "accuracy": _accuracy,
    "curves": _curves,
    "correction": _correction,
    "alpha": _alpha,
    "bases": _bases,
    "pairs": _pairs,
    "quality": _quality,
    "features": _features,
    "allocation": _allocation,
    "exactness": _exactness,
    "class-shares": _class_shares,
}
