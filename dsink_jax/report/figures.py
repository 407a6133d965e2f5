"""Figures of one run, from its files alone."""

import pathlib
from collections.abc import Sequence
from typing import Any

# Okabe and Ito's palette, told apart by people of any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")


def class_counts_figure(data: dict[str, Any], path: pathlib.Path) -> None:
    """Training images of each class by true and by observed label, as an SVG file."""
    figure, axes = _axes(5.0, 3.2)
    classes = range(data["num_classes"])
    axes.step(classes, data["clean_counts"], where="mid", color=PALETTE[0], label="true label")
    axes.step(
        classes, data["noisy_counts"], where="mid", color=PALETTE[1], ls=LINES[1], label="observed label"
    )
    axes.set(xlabel="class", ylabel="training images", ylim=(0, None))
    axes.legend(frameon=False)
    _save(figure, path)


def learning_curves_figure(metrics: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Test accuracy of each model over the epochs, as an SVG file."""
    figure, axes = _axes(6.5, 3.6)
    for i, name in enumerate(dict.fromkeys(record["model"] for record in metrics)):
        records = [record for record in metrics if record["model"] == name]
        axes.plot(
            [record["epoch"] for record in records],
            [100 * record["accuracy"] for record in records],
            color=PALETTE[i % len(PALETTE)],
            ls=LINES[i % len(LINES)],
            lw=1.2,
            label=name,
        )
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def per_class_figure(results: dict[str, Any], path: pathlib.Path) -> None:
    """Test accuracy of each model by class, as an SVG file."""
    figure, axes = _axes(6.5, 3.6)
    for i, (name, entry) in enumerate(results["models"].items()):
        axes.plot(
            [float("nan") if share is None else 100 * share for share in entry["per_class"]],
            color=PALETTE[i % len(PALETTE)],
            ls=LINES[i % len(LINES)],
            marker="o",
            ms=3,
            lw=1.2,
            label=name,
        )
    axes.set(xlabel="class", ylabel="test accuracy (%)")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def heat_map_figure(
    cells: Sequence[Sequence[float]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    path: pathlib.Path,
    *,
    row_label: str,
    column_label: str,
    title: str,
) -> None:
    """Signed numbers as a table of colours around 0, each printed in its cell, as an SVG file."""
    figure, axes = _axes(2.2 + 0.95 * len(column_names), 1.6 + 0.5 * len(row_names))
    largest = max(abs(value) for row in cells for value in row) or 1.0
    # Orange to purple: told apart by people of any colour vision, and white at 0.
    axes.imshow(cells, cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="auto")
    for i, row in enumerate(cells):
        for j, value in enumerate(row):
            strong = abs(value) > 0.6 * largest
            colour = "white" if strong else "black"
            axes.text(j, i, f"{value:+.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(column_names)), column_names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(row_names)), row_names, fontsize=8)
    axes.set(xlabel=column_label, ylabel=row_label)
    axes.set_title(title, fontsize=9)
    axes.grid(False)
    _save(figure, path)


def _axes(width, height):
    # The object interface: no global state, no display needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _save(figure, path):
    import matplotlib

    # Without the date, and with ids that do not depend on chance, equal runs give equal files. The name
    # in the salt keeps the ids of figures on one page apart.
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, format="svg", metadata={"Date": None})
