"""What all drawings share: the palette, axes that are labelled the same way, and the file they become."""

import importlib.util
import pathlib
import warnings
from typing import Any

from dsink_jax.errors import InputError

# Okabe and Ito's palette, told apart by people of any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Nine of Paul Tol's and black, for the same, where there are more classes than these.
CLASSES = (
    *("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677"),
    *("#AA4499", "#44AA99", "#999933", "#882255", "#000000"),
)
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class MissingMatplotlibError(InputError):
    """Raised where nothing can be drawn; the message says what to install."""


def check_matplotlib() -> None:
    """Raises `MissingMatplotlibError` if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingMatplotlibError(
            'Figures and pages of runs need matplotlib: pip install "dsink-jax[report]"'
        )


def make_axes(width: float, height: float) -> tuple[Any, Any]:
    """A figure of that many inches, and its axes."""
    figure, (axes,) = make_grid(width, height, 1, 1)
    return figure, axes


def make_grid(
    width: float, height: float, rows: int, columns: int, *, share_y: bool = True
) -> tuple[Any, list[Any]]:
    """A figure of that many inches, and the axes of its panels, row by row."""
    check_matplotlib()
    # The object interface: no global state, no display needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).flatten().tolist()
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure, grid


def style(number: int) -> dict[str, str]:
    """Colour and kind of line of a curve by its number."""
    return {"color": PALETTE[number % len(PALETTE)], "ls": LINES[number % len(LINES)]}


def legend_beside(axes: Any) -> None:
    """Puts the legend to the right of the axes."""
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def legend_below(figure: Any, axes: Any) -> None:
    """Puts the legend under the axes, so that the drawing is narrow enough for a phone.

    The figure becomes as much higher as more than two lines of names take.
    """
    handles, names = axes.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    columns = max(1, min(3, int(width / (0.5 + 0.07 * max(map(len, names))))))
    lines = -(-len(names) // columns)
    figure.set_size_inches(width, height + 0.17 * max(lines - 2, 0))
    figure.legend(handles, names, frameon=False, fontsize=8, ncols=columns, loc="outside lower center")


def count_on_x(axes: Any) -> None:
    """Puts the ticks of the x axis at whole numbers."""
    axes.xaxis.get_major_locator().set_params(integer=True)


def colour_cells(axes: Any, values: Any, **colours: Any) -> Any:
    """Draws a table of numbers as shapes, row 0 on top and cell (i, j) around the point (j, i)."""
    rows, columns = len(values), len(values[0])
    # As wide as the cell, and in its colour: no white lines between cells.
    drawn = axes.pcolormesh(range(columns), range(rows), values, shading="nearest", lw=0.1, **colours)
    drawn.set_edgecolor("face")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    return drawn


def plain(text: str) -> str:
    """Text that matplotlib prints as it is: a `$` starts no formula."""
    return text.replace("$", r"\$")


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes the figure as SVG; equal figures give equal files."""
    import matplotlib

    # Without the date, and with ids that do not depend on chance, equal runs give equal files. The name
    # in the salt keeps the ids of figures on one page apart.
    with matplotlib.rc_context({"svg.hashsalt": path.stem}), warnings.catch_warnings():
        # A class name in letters that the font lacks is still whole in the tables.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, format="svg", metadata={"Date": None})
