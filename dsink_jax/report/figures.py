"""Charts of any numbers by their names, for studies over several runs."""

import pathlib
from collections.abc import Mapping, Sequence

from dsink_jax.report.canvas import (
    CLASSES,
    MARKERS,
    PALETTE,
    colour_cells,
    count_on_x,
    legend_beside,
    make_axes,
    make_grid,
    save,
    style,
)


def lines_figure(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], ...]]],
    path: pathlib.Path,
    *,
    x_label: str,
    y_label: str,
    x_log: bool = False,
    x_whole: bool = False,
    level: float | None = None,
) -> None:
    """Lines by their names, in panels by their titles with one axis of values, as an SVG file.

    Args:
      panels: for each line x, y and, if there is one, how far the band around it reaches to either side.
      path: where the figure goes.
      x_label: of the horizontal axes.
      y_label: of the axis of values.
      x_log: whether the horizontal axes are logarithmic.
      x_whole: whether they have ticks at whole numbers alone.
      level: of the axis of values, to be marked.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure, grid = make_grid(1.6 + 3.0 * columns, 0.4 + 2.5 * rows, rows, columns)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        if level is not None:
            axes.axhline(level, color="grey", lw=0.8)
        for name, (x, y, *band) in lines.items():
            shown = style(names.index(name))
            axes.plot(x, y, **shown, lw=1.2, label=name)
            for reach in band:
                low, high = zip(*((v - r, v + r) for v, r in zip(y, reach, strict=True)), strict=True)
                axes.fill_between(x, low, high, color=shown["color"], alpha=0.12, lw=0)
        axes.set_title(title, fontsize=8)
        axes.set(xlabel=x_label, ylabel=y_label)
        if x_log:
            axes.set_xscale("log")
        if x_whole:
            count_on_x(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = {h.get_label(): h for axes in grid for h in axes.get_lines() if h.get_label() in names}
    figure.legend(handles=handles.values(), frameon=False, fontsize=8, loc="outside right center")
    save(figure, path)


def points_figure(
    values: Mapping[str, Sequence[Sequence[float]]],
    groups: Sequence[str],
    path: pathlib.Path,
    *,
    value_label: str,
    group_label: str,
) -> None:
    """Single values as points with a bar at their mean, by name and side by side in groups, as an SVG file.

    Args:
      values: for each name, the values in each group.
      groups: names of the groups, from top to bottom.
      path: where the figure goes.
      value_label: of the axis of values.
      group_label: what the groups are.
    """
    figure, axes = make_axes(7.5, 0.7 + len(groups) * (0.1 + 0.14 * len(values)))
    for i, (name, of_groups) in enumerate(values.items()):
        offset = 0.8 * ((i + 0.5) / len(values) - 0.5)
        colour = {"color": PALETTE[i % len(PALETTE)]}
        marker = MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]  # another where colours come again
        for j, points in enumerate(of_groups):
            axes.plot(points, [j + offset] * len(points), marker, ms=3, alpha=0.6, **colour)
            if points:
                axes.plot([sum(points) / len(points)], [j + offset], "|", ms=11, mew=2, **colour)
        axes.plot([], [], marker, ms=4, label=name, **colour)
    axes.set_yticks(range(len(groups)), groups, fontsize=8)
    axes.set(xlabel=value_label, ylabel=group_label, ylim=(len(groups) - 0.5, -0.5))
    if len(values) > 1:
        legend_beside(axes)
    save(figure, path)


def classes_figure(
    panels: Mapping[str, Sequence[tuple[float, float, int]]],
    path: pathlib.Path,
    *,
    x_label: str,
    y_label: str,
) -> None:
    """Points (x, y, class) by panel, each drawn as the number of its class in a colour, as an SVG file."""
    figure, grid = make_grid(3.2 * len(panels), 3.4, 1, len(panels), share_y=False)
    for axes, (title, points) in zip(grid, panels.items(), strict=True):
        for label in sorted({point[2] for point in points}):
            x, y = zip(*[point[:2] for point in points if point[2] == label], strict=True)
            colour = CLASSES[label % len(CLASSES)]
            axes.plot(x, y, ls="", marker=f"${label}$", ms=5, mew=0, color=colour)
        axes.set_title(title, fontsize=8)
        axes.set(xlabel=x_label, ylabel=y_label, xticks=[], yticks=[])
    save(figure, path)


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
    figure, axes = make_axes(2.2 + 0.95 * len(column_names), 1.6 + 0.5 * len(row_names))
    largest = max(abs(value) for row in cells for value in row) or 1.0
    # Orange to purple: told apart by people of any colour vision, and white at 0.
    colour_cells(axes, cells, cmap="PuOr_r", vmin=-largest, vmax=largest)
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
    save(figure, path)
