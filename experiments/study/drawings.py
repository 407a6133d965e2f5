"""The figures of studies, by the names that studies list, from the rows of the CSV files alone."""

import pathlib
import statistics
from collections.abc import Callable, Sequence

from dsink_jax.report import figures
from experiments.study import records
from experiments.study.catalogue import Study
from experiments.study.models import (
    DEFAULT_ALPHA,
    DEFAULT_BASE,
    dsink,
    imbalance_robust,
    noise_robust,
    with_needs,
)
from experiments.study.records import Row

# Draws one figure of one budget into a folder: file names with text for those who do not see them.
Draw = Callable[[pathlib.Path, Study, str, Sequence[Row]], list[tuple[str, str]]]


def draw(folder: pathlib.Path, study: Study, budget: str, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Draws all figures of a study for one budget; (file name, alternative text) of each."""
    return [drawn for name in study.figures for drawn in FIGURES[name](folder, study, budget, rows)]


def _accuracy(folder, study, budget, rows):
    """Accuracy of each model, a group for each setting."""
    del study
    path = folder / f"accuracy-{budget}.svg"
    settings, models = _names(rows, "setting"), _names(rows, "model")
    groups = {setting: [row for row in rows if row["setting"] == setting] for setting in settings}
    values = {model: [_percent(groups[setting], model) for setting in settings] for model in models}
    figures.points_figure(values, settings, path, value_label="test accuracy (%)")
    shown = f"test accuracy of {len(models)} models in {len(settings)} settings, a point for each seed"
    return [(path.name, shown)]


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
    return [(path.name, f"{label} over the epochs, mean over seeds: {', '.join(models)}")]


def _mean_curve(points, setting, model, measure):
    """Epochs, and the mean of a measure over seeds in percent."""
    by_epoch = {}
    for point in points:
        if (point["setting"], point["model"]) == (setting, model) and point[measure] is not None:
            by_epoch.setdefault(point["epoch"], []).append(100 * point[measure])
    epochs = sorted(by_epoch)
    return epochs, [statistics.mean(by_epoch[epoch]) for epoch in epochs]


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
        mean = statistics.mean(100 * row["last"] for row in rows if row["model"] == model)
        base = options.get("base", DEFAULT_BASE)
        lines.setdefault(base, []).append((float(options.get("alpha", DEFAULT_ALPHA)), mean))
    panel = {base: tuple(zip(*sorted(points), strict=True)) for base, points in lines.items()}
    figures.lines_figure({"": panel}, path, x_label="alpha", y_label="test accuracy (%)", x_log=True)
    return [(path.name, f"test accuracy over alpha with the bases {', '.join(panel)}")]


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
    figures.points_figure(values, bases, path, value_label="test accuracy (%)")
    return [(path.name, f"test accuracy of {', '.join(bases)} alone and with D-SINK, a point for each seed")]


def _pairs(folder, study, budget, rows):
    """How far D-SINK is ahead of the better of its two parts, for every pair."""
    del study
    drawn = []
    for setting in _names(rows, "setting"):
        group = [row for row in rows if row["setting"] == setting]
        f_L, f_N = (
            [name.removeprefix(f"{role}-") for name in _names(group, "model") if name.startswith(f"{role}-")]
            for role in ("f_L", "f_N")
        )
        cells = [[pair_ahead(group, one, other) for other in f_N] for one in f_L]
        path = folder / f"pairs-{setting}.svg"
        title = "accuracy of D-SINK less that of the better of f_L and f_N (points)"
        figures.heat_map_figure(cells, f_L, f_N, path, row_label="f_L", column_label="f_N", title=title)
        drawn.append((path.name, f"{setting}: {title}"))
    return drawn


def _quality(folder, study, budget, rows):
    """Accuracy of D-SINK over that of the better of its two auxiliaries, as these get worse."""
    path = folder / f"quality-{budget}.svg"
    by_name = {model.name: model for model in with_needs(study.models)}
    kinds = {"f_N": {}, "f_L": {}, "both": {}}
    for row in rows:
        model = by_name.get(row["model"])
        if model is None or not model.name.startswith("dsink"):
            continue
        parts = [
            100 * other["last"]
            for other in rows
            for need in model.needs
            if (other["setting"], other["seed"], other["model"]) == (row["setting"], row["seed"], need.name)
        ]
        weakened = [one for one in ("f_N", "f_L") if f"-{one}=" in model.name]
        kind = "both" if len(weakened) == 2 else (weakened or ["f_N"])[0]
        if len(parts) == 2:
            kinds[kind].setdefault(model.name, []).append((max(parts), 100 * row["last"]))
    points = {
        f"{kind} worse" if kind != "both" else "both worse": [
            tuple(map(statistics.mean, zip(*seeds, strict=True))) for seeds in models.values()
        ]
        for kind, models in kinds.items()
    }
    label = "test accuracy of {} (%)"
    figures.scatter_figure(
        points, path, x_label=label.format("the better of f_L and f_N"), y_label=label.format("D-SINK")
    )
    return [
        (path.name, "test accuracy of D-SINK over that of the better of its auxiliaries, mean over seeds")
    ]


def _features(folder, study, budget, rows):
    """t-SNE of the features of each model, for the first seed of each setting."""
    del study, rows
    points = records.read(folder, "features.csv", budget)
    drawn = []
    for setting in _names(points, "setting"):
        of_setting = [point for point in points if point["setting"] == setting]
        seed = of_setting[0]["seed"]
        panels = {}
        for model in _names(of_setting, "model"):
            of_model = [point for point in of_setting if point["model"] == model]
            same = 100 * statistics.mean(point["same_class"] for point in of_model)
            placed = [(p["x"], p["y"], p["label"]) for p in of_model if p["seed"] == seed]
            panels[f"{model}\n{same:.0f} % of neighbours of the same class"] = placed
        path = folder / f"features-{setting}.svg"
        figures.classes_figure(panels, path, x_label="t-SNE 1", y_label="t-SNE 2")
        drawn.append((path.name, f"t-SNE of test images, {setting}, seed {seed}: {', '.join(panels)}"))
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


def pair_ahead(rows: Sequence[Row], f_L: str, f_N: str) -> float:
    """Mean over seeds of D-SINK's accuracy less the better of f_L's and f_N's, in points; NaN if not run."""
    target = pair_name(f_L, f_N)
    seeds = {row["seed"]: row["last"] for row in rows if row["model"] == target}
    parts = [
        {row["seed"]: row["last"] for row in rows if row["model"] == name}
        for name in (f"f_L-{f_L}", f"f_N-{f_N}")
    ]
    ahead = [
        100 * (accuracy - max(part[seed] for part in parts))
        for seed, accuracy in seeds.items()
        if all(seed in part for part in parts)
    ]
    return statistics.mean(ahead) if ahead else float("nan")


def pair_name(f_L: str, f_N: str) -> str:
    """The name of D-SINK with two auxiliaries."""
    return dsink(f_L=imbalance_robust(f_L), f_N=noise_robust(f_N)).name


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
}
