"""Charts of one run. Each is written as an SVG file and returned in words, for those who cannot see it."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsink_jax.report.canvas import (
    LINES,
    MARKERS,
    PALETTE,
    colour_cells,
    count_on_x,
    legend_below,
    make_axes,
    make_grid,
    plain,
    save,
    style,
)
from dsink_jax.report.tables import percent

GROUPS = ("many", "medium", "few")
SINKHORN = {
    "sinkhorn_iterations": "iterations a batch",
    "marginal_error": "L1 error of the class marginal",
    "sinkhorn_converged": "converged batches (%)",
}
# Beyond, names and numbers do not fit, and axes count.
_MOST_NAMED = 20
_HATCHES = ("", "///", "...")


def class_counts_figure(data: dict[str, Any], path: pathlib.Path) -> str:
    """Training images of each class by true and by observed label."""
    figure, axes = make_axes(5.2, 3.2)
    classes = range(data["num_classes"])
    axes.step(classes, data["clean_counts"], where="mid", color=PALETTE[0], label="true label")
    axes.step(
        classes, data["noisy_counts"], where="mid", color=PALETTE[1], ls=LINES[1], label="observed label"
    )
    axes.set(xlabel="class", ylabel="training images", ylim=(0, None))
    count_on_x(axes)
    axes.legend(frameon=False)
    save(figure, path)
    return "; ".join(
        f"by {name} label from {max(counts):,} to {min(counts):,}"
        for name, counts in (("true", data["clean_counts"]), ("observed", data["noisy_counts"]))
    )


def learning_curves_figure(metrics: list[dict[str, Any]], path: pathlib.Path) -> str:
    """Test accuracy of each model over the epochs."""
    figure, axes = make_axes(5.2, 3.6)
    words = []
    for i, name in enumerate(dict.fromkeys(record["model"] for record in metrics)):
        epochs, shares = _curve([record for record in metrics if record["model"] == name], "accuracy")
        axes.plot(epochs, [100 * share for share in shares], **style(i), lw=1.2, label=plain(name))
        if epochs:
            words.append(f"{name} {percent(shares[0])} % at first and {percent(shares[-1])} % at last")
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    count_on_x(axes)
    if words:
        legend_below(figure, axes)
    save(figure, path)
    return "; ".join(words) or "nothing recorded"


def group_accuracy_figure(results: dict[str, Any], path: pathlib.Path) -> str:
    """Test accuracy of each model on the frequent, medium and rare thirds of the classes, as bars."""
    figure, axes = make_axes(5.2, 3.4)
    models, words = results["models"], []
    width = 0.8 / max(len(models), 1)
    for i, (name, entry) in enumerate(models.items()):
        shares = [entry[group] for group in GROUPS]
        axes.bar(
            [j + width * (i + 0.5) - 0.4 for j in range(len(GROUPS))],
            [100 * _number(share) for share in shares],
            width,
            color=PALETTE[i % len(PALETTE)],
            hatch=_HATCHES[i // len(PALETTE) % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.5,
            label=plain(name),
        )
        each = (f"{group} {percent(share)} %" for group, share in zip(GROUPS, shares, strict=True))
        words.append(f"{name}: {', '.join(each)}")
    axes.set_xticks(range(len(GROUPS)), GROUPS)
    axes.set(xlabel="classes by number of training images", ylabel="test accuracy (%)", ylim=(0, 100))
    axes.grid(False, axis="x")
    if models:
        legend_below(figure, axes)
    save(figure, path)
    return "; ".join(words) or "no models"


def per_class_figure(results: dict[str, Any], path: pathlib.Path) -> str:
    """Test accuracy of each model by class."""
    figure, axes = make_axes(5.2, 3.6)
    words = []
    for i, (name, entry) in enumerate(results["models"].items()):
        shares = [_number(share) for share in entry["per_class"]]
        marker = "o" if len(shares) <= _MOST_NAMED else None
        values = [100 * share for share in shares]
        axes.plot(values, **style(i), marker=marker, ms=3, lw=1.2, label=plain(name))
        known = [c for c, share in enumerate(shares) if share == share]
        if known:
            worst, best = (choose(known, key=shares.__getitem__) for choose in (min, max))
            words.append(
                f"{name} from {percent(shares[worst])} % (class {worst}) to {percent(shares[best])} % "
                f"(class {best})"
            )
    axes.set(xlabel="class", ylabel="test accuracy (%)")
    count_on_x(axes)
    if results["models"]:
        legend_below(figure, axes)
    save(figure, path)
    return "; ".join(words) or "no models"


def confusion_matrix_figure(
    matrix: Sequence[Sequence[int]], class_names: Sequence[str], path: pathlib.Path
) -> str:
    """Test images by true class (rows) and predicted class (columns); a colour is a share of its row.

    Args:
      matrix: C rows of C counts.
      class_names: C names.
      path: where the figure goes.

    Returns:
      What it shows in words: the share on the diagonal and the most frequent confusions.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    named = len(counts) <= _MOST_NAMED
    side = 1.6 + 0.42 * len(counts) if named else 6.5
    figure, axes = make_axes(side + 0.9, side)
    colours = {"cmap": "Blues", "vmin": 0, "vmax": 100}
    if named:
        drawn = colour_cells(axes, 100 * shares, **colours)
    else:  # thousands of shapes would make a page of megabytes
        drawn = axes.imshow(100 * shares, interpolation="none", **colours)
    scale = figure.colorbar(drawn, ax=axes, label="share of the true class (%)", shrink=0.8)
    scale.solids.set(rasterized=False, edgecolor="face")
    if named:
        _name_classes(axes, class_names)
        axes.set_yticks(range(len(counts)), [plain(_short(name)) for name in class_names], fontsize=8)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    save(figure, path)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    pairs = [np.unravel_index(k, wrong.shape) for k in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    most = [f"{class_names[i]} as {class_names[j]}, {wrong[i, j]} images" for i, j in pairs if wrong[i, j]]
    right = percent(np.trace(counts) / max(counts.sum(), 1))
    return f"{right} % on the diagonal; most often confused: {'; '.join(most) or 'none'}"


def sinkhorn_figure(metrics: list[dict[str, Any]], path: pathlib.Path) -> str | None:
    """Means over the batches of each epoch of what the Sinkhorn solver reports, in a panel each.

    Returns:
      What it shows in words; None, and no file, if no model of `metrics` was trained with the solver.
    """
    solved = [record for record in metrics if SINKHORN.keys() <= record.get("train", {}).keys()]
    if not solved:
        return None
    figure, grid = make_grid(8.2, 2.9, 1, len(SINKHORN), share_y=False)
    names = list(dict.fromkeys(record["model"] for record in solved))
    words = []
    for axes, (key, label) in zip(grid, SINKHORN.items(), strict=True):
        scale = 100 if key == "sinkhorn_converged" else 1
        for i, name in enumerate(names):
            records = [record for record in solved if record["model"] == name]
            epochs = [record["epoch"] for record in records]
            values = [scale * record["train"][key] for record in records]
            axes.plot(epochs, values, **style(i), marker=".", ms=3, lw=1.2, label=plain(name))
            words.append(f"{name}, {label}: {values[0]:.3g} at first, {values[-1]:.3g} at last")
        axes.set(xlabel="epoch", ylabel=label)
        count_on_x(axes)
        if key == "marginal_error" and all(record["train"][key] > 0 for record in solved):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 105 if scale == 100 else None)
    if len(names) > 1:
        legend_below(figure, grid[0])
    save(figure, path)
    return "; ".join(words)


def batch_shares_figure(
    labels: dict[str, np.ndarray],
    predictions: dict[str, np.ndarray],
    class_names: Sequence[str],
    path: pathlib.Path,
) -> str:
    """Shares of the classes in a batch, by its labels and by the mean predictions of the models.

    Many classes are drawn in at most 20 groups of neighbours: a batch has hardly an image of each.

    Args:
      labels: by their names, integer `[N]`: drawn as a filled area (the first) and a line.
      predictions: by their names, `[N, C]`, rows summing to 1.
      class_names: C names.
      path: where the figure goes.

    Returns:
      The shares in words.
    """
    size = -(-len(class_names) // _MOST_NAMED)
    starts = np.arange(0, len(class_names), size)
    ends = np.minimum(starts + size, len(class_names)) - 1
    names = class_names if size == 1 else [f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    classes = np.arange(len(starts))

    def grouped(row):
        return np.add.reduceat(row, starts)

    figure, axes = make_axes(5.2, 3.7)
    shares = {
        name: grouped(np.bincount(values, minlength=len(class_names))) / len(values)
        for name, values in labels.items()
    }
    filled, *others = shares
    axes.bar(classes, 100 * shares[filled], 0.8, color="#d0d0d0", label=filled)
    for name in others:
        axes.step(classes, 100 * shares[name], where="mid", color="#000000", lw=1.2, label=name)
    for i, (name, rows) in enumerate(predictions.items()):
        shares[name] = grouped(rows.mean(0))
        # Hollow markers, larger first: equal shares stay visible around each other.
        marker = {"marker": MARKERS[i % len(MARKERS)], "ms": 8 - 1.6 * i, "mfc": "none"}
        axes.plot(classes, 100 * shares[name], **style(i), **marker, lw=0.9, label=name)
    _name_classes(axes, names)
    axes.set(xlabel="class" if size == 1 else "classes", ylabel="share of the batch (%)", ylim=(0, None))
    legend_below(figure, axes)
    save(figure, path)
    return "; ".join(
        f"{name}: most {names[row.argmax()]} ({percent(row.max())} %), least "
        f"{names[row.argmin()]} ({percent(row.min())} %)"
        for name, row in shares.items()
    )


def _curve(records, key):
    """Epochs and values of the records that have a value."""
    known = [record for record in records if record.get(key) is not None]
    return [record["epoch"] for record in known], [record[key] for record in known]


def _name_classes(axes, class_names):
    """Puts the names of the classes under the x axis."""
    tilted = {"rotation": 45, "ha": "right"} if max(map(len, class_names)) > 3 else {}
    names = [plain(_short(name)) for name in class_names]
    axes.set_xticks(range(len(names)), names, fontsize=8, **tilted)


def _number(share):
    return float("nan") if share is None else share


def _short(name, longest=16):
    return name if len(name) <= longest else name[: longest - 1] + "…"
