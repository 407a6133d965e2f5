"""The figures of studies, by the names that studies list, from the rows of the CSV files alone."""

import math
import pathlib
import re
import statistics
from collections.abc import Callable, Sequence

from dsink_jax.report import figures
from experiments.study import beside, records
from experiments.study.catalogue import Study
from experiments.study.models import DEFAULT_ALPHA, DEFAULT_BASE
from experiments.study.records import Row

# Draws one figure of one budget into a folder: file names with text for those who do not see them.
Draw = Callable[[pathlib.Path, Study, str, Sequence[Row]], list[tuple[str, str]]]

# More models than that are rows of a figure and not colours.
_MOST_COLOURS = 7


def draw(folder: pathlib.Path, study: Study, budget: str, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Draws all figures of a study for one budget; (file name, alternative text) of each."""
    return [drawn for name in study.figures for drawn in FIGURES[name](folder, study, budget, rows)]


def _accuracy(folder, study, budget, rows):
    """Accuracy of each model: a group for each setting, or for each model where these are many."""
    del study
    path = folder / f"accuracy-{budget}.svg"
    settings, models = _names(rows, "setting"), _names(rows, "model")
    found = {
        (setting, model): _percent([row for row in rows if row["setting"] == setting], model)
        for setting in settings
        for model in models
    }
    label = "test accuracy (%)"
    if len(models) > _MOST_COLOURS or len(settings) == 1:
        values = {setting: [found[setting, model] for model in models] for setting in settings}
        figures.points_figure(values, models, path, value_label=label, group_label="model")
    else:
        values = {model: [found[setting, model] for setting in settings] for model in models}
        figures.points_figure(values, settings, path, value_label=label, group_label="corrupted set")
    shown = (
        f"test accuracy of {_count(models, 'model')} in {_count(settings, 'setting')}, a point for each seed"
    )
    return [(path.name, shown)]


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
    path = folder / f"{measure.replace('_', '-')}-over-epochs-{budget}.svg"
    panels = {}
    models = [name for name in _names(rows, "model") if any(p["model"] == name for p in points)]
    for setting in _names(rows, "setting"):
        lines = {model: _mean_curve(points, setting, model, measure) for model in models}
        panels[setting] = {model: line for model, line in lines.items() if line[0]}
    figures.lines_figure(panels, path, x_label="epoch", y_label=label)
    shown = f"{label} over the epochs, mean and standard deviation over seeds: {', '.join(models)}"
    return [(path.name, shown)]


def _mean_curve(points, setting, model, measure):
    """Epochs, and the mean and standard deviation of a measure over seeds in percent."""
    by_epoch = {}
    for point in points:
        if (point["setting"], point["model"]) == (setting, model) and point[measure] is not None:
            by_epoch.setdefault(point["epoch"], []).append(100 * point[measure])
    return _line(by_epoch)


def _line(values):
    """A line with its band: x in order, the means of the values there, and their standard deviations."""
    values = dict(sorted(values.items()))
    means = [statistics.mean(ys) for ys in values.values()]
    return list(values), means, [statistics.stdev(ys) if len(ys) > 1 else 0.0 for ys in values.values()]


def _alpha(folder, study, budget, rows):
    """Accuracy over alpha, a line for each base."""
    del study
    path = folder / f"alpha-{budget}.svg"
    lines = {}
    for model in _names(rows, "model"):
        kind, *given = model.split("-")
        options = dict(part.split("=") for part in given if "=" in part)
        if kind != "dsink" or not options.keys() <= {"alpha", "base"}:
            continue
        base, alpha = options.get("base", DEFAULT_BASE), float(options.get("alpha", DEFAULT_ALPHA))
        lines.setdefault(base, {})[alpha] = _percent(rows, model)
    panel = {f"base {base}": _line(values) for base, values in lines.items()}
    figures.lines_figure({"": panel}, path, x_label="alpha", y_label="test accuracy (%)", x_log=True)
    shown = f"test accuracy over alpha, mean and standard deviation over seeds: {', '.join(panel)}"
    return [(path.name, shown)]


def _bases(folder, study, budget, rows):
    """What D-SINK adds to each base."""
    del study
    path = folder / f"bases-{budget}.svg"
    bases = [name for name in _names(rows, "model") if not name.startswith(("dsink", "f_L", "f_N"))]
    named = {base: "dsink" if base == DEFAULT_BASE else f"dsink-base={base}" for base in bases}
    values = {
        "base alone": [_percent(rows, base) for base in bases],
        "D-SINK on it": [_percent(rows, named[base]) for base in bases],
    }
    figures.points_figure(values, bases, path, value_label="test accuracy (%)", group_label="base")
    return [(path.name, f"test accuracy of {', '.join(bases)} alone and with D-SINK, a point for each seed")]


def _pairs(folder, study, budget, rows):
    """How far D-SINK is ahead of the better of its two parts, for every pair."""
    drawn = []
    for setting in _names(rows, "setting"):
        pairs = beside.beside(study, [row for row in rows if row["setting"] == setting])
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
    undamaged, lines = None, {way: {} for way in _WORSE}
    for pair in beside.beside(study, rows):
        points = [100 * (one - best) for one, best in zip(pair.accuracies, pair.best, strict=True)]
        found = re.findall(r"(f_[NL])=[a-z_]+-(epochs|data|noise)=([0-9.]+)", pair.model)
        if not found:
            undamaged = points
            continue
        (which, way, strength), *others = found
        if others:
            apart = "each on its own" if pair.model.endswith("draw=1") else "on the same"
            which = "both" if way == "epochs" else f"both, {apart}"
        lines[way].setdefault(which, {})[float(strength)] = points
    panels = {}
    for way, (title, intact) in _WORSE.items():
        start = {} if undamaged is None else {intact: undamaged}
        panels[title] = {
            f"worse: {which}": _line({**start, **values}) for which, values in lines[way].items()
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


# Models that have a panel of their own.
_PANEL = {"cross_entropy": "cross_entropy", "dsink": "dsink"}


def _features(folder, study, budget, rows):
    """t-SNE of the features of each model, for the first seed of each setting.

    Which model is the strongest that is no D-SINK differs from seed to seed: together they are one panel.
    """
    del study, rows
    points = records.read(folder, "features.csv", budget)
    drawn = []
    for setting in _names(points, "setting"):
        of_setting = [point for point in points if point["setting"] == setting]
        seed = of_setting[0]["seed"]
        panels = {}
        for which in dict.fromkeys(_PANEL.get(point["model"]) for point in of_setting):
            of_panel = [point for point in of_setting if _PANEL.get(point["model"]) == which]
            same = 100 * statistics.mean(point["same_class"] for point in of_panel)
            shown = [point for point in of_panel if point["seed"] == seed]
            named = which or f"the best without D-SINK, here {shown[0]['model']}"
            seeds = _names(of_panel, "seed")
            title = f"{named}\n{same:.0f} % of neighbours alike, mean of {_count(seeds, 'seed')}"
            panels[title] = [(p["x"], p["y"], p["label"]) for p in shown]
        path = folder / f"features-{setting}.svg"
        figures.classes_figure(panels, path, x_label="t-SNE 1", y_label="t-SNE 2")
        shown = "; ".join(title.replace("\n", ", ") for title in panels)
        drawn.append((path.name, f"t-SNE of test images, {setting}, seed {seed}: {shown}"))
    return drawn


def _allocation(folder, study, budget, rows):
    """Error of the surrogate labels over the batch size."""
    del study, rows
    points = records.read(folder, "allocation.csv", budget)
    if not points:
        return []
    panel = {}
    for kind in _names(points, "marginal"):
        sizes = sorted({p["batch_size"] for p in points if p["marginal"] == kind})
        errors = [
            statistics.mean(p["error"] for p in points if (p["marginal"], p["batch_size"]) == (kind, size))
            for size in sizes
        ]
        panel[kind] = (sizes, errors)
    path = folder / f"allocation-{budget}.svg"
    label = "total variation to Q of the whole set"
    figures.lines_figure({"": panel}, path, x_label="batch size", y_label=label, x_log=True)
    return [(path.name, f"{label} over the batch size, with the marginal of: {', '.join(panel)}")]


def _exactness(folder, study, budget, rows):
    """Error of the surrogate labels by the settings of the solver."""
    del study, rows
    points = records.read(folder, "exactness.csv", budget)
    if not points:
        return []
    solvers, settings = _names(points, "solver"), _names(points, "setting")
    values = {
        setting: [
            [100 * p["error"] for p in points if (p["setting"], p["solver"]) == (setting, solver)]
            for solver in solvers
        ]
        for setting in settings
    }
    path = folder / f"exactness-{budget}.svg"
    label = "total variation to the exact Q of the batch (%)"
    figures.points_figure(values, solvers, path, value_label=label, group_label="solver")
    return [(path.name, f"{label} with {', '.join(solvers)}, a point for each seed")]


def _class_shares(folder, study, budget, rows):
    """Shares of the classes by labels and by models, mean over the seeds with their standard deviation."""
    del study, rows
    points = records.read(folder, "class_shares.csv", budget)
    panels = {}
    for setting in _names(points, "setting"):
        here = [point for point in points if point["setting"] == setting]
        panels[setting] = {}
        for kind in _names(here, "kind"):
            classes = sorted({point["class"] for point in here})
            shares = [
                [100 * p["share"] for p in here if (p["kind"], p["class"]) == (kind, number)]
                for number in classes
            ]
            spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in shares]
            panels[setting][kind] = (classes, [statistics.mean(values) for values in shares], spread)
    if not panels:
        return []
    path = folder / f"class-shares-{budget}.svg"
    label = "share of the training images (%)"
    figures.lines_figure(panels, path, x_label="class", y_label=label, x_whole=True)
    kinds = ", ".join(_names(points, "kind"))
    return [(path.name, f"{label} by class, according to: {kinds}")]


def _percent(rows, model):
    return [100 * row["last"] for row in rows if row["model"] == model]


def _names(rows, field):
    return list(dict.fromkeys(row[field] for row in rows))


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
