"""The figure of the method: a batch by f_N, the classes by f_L, and Q between them.

    python -m experiments.allocation_figure docs/allocation.svg

Drawn from what `surrogate_labels` gives for made-up predictions of twelve examples, not by hand.
"""

import pathlib
import sys

import jax
import numpy as np

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.extras import needs

CLASSES = ("A", "B", "C", "D")
INK = "#808080"  # is read on white and on black


def batch(seed: int = 3, count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits `[N, C]` of f, f_N and f_L: f_N trusts the frequent classes, f_L gives rare ones their part."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(4), (5, 3, 2, 2))[:count]
    evidence = 1.6 * np.eye(4)[true] + 0.8 * rng.standard_normal((count, 4))
    frequent = np.array([1.2, 0.4, -0.5, -1.1])
    return evidence, evidence + frequent, evidence - 0.3 * frequent


def draw(path: pathlib.Path) -> None:
    """Writes the figure as an SVG file.

    Raises:
      InputError: if Matplotlib is missing.
    """
    with needs("report", "Drawing figures"):
        import matplotlib
        from matplotlib.figure import Figure

    f, f_n, f_l = batch()
    wanted = np.asarray(class_marginal(f_l))
    q = np.asarray(surrogate_labels(f, noise_robust_logits=f_n, class_marginal=wanted).labels)
    noise_robust = np.asarray(jax.nn.softmax(f_n))
    with matplotlib.rc_context(
        {
            "svg.hashsalt": "dsink-jax",
            "font.size": 9,
            **{name: INK for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")},
            "axes.edgecolor": INK,
        }
    ):
        figure = Figure(figsize=(7.2, 3.6))
        axes = figure.subplots(2, 3, gridspec_kw={"height_ratios": (1, 2.6), "hspace": 0.12, "wspace": 0.35})
        columns = (
            ("f_N: class of each example", noise_robust, noise_robust.mean(0)),
            ("f_L: share of each class", None, wanted),
            ("Q agrees with both", q, q.mean(0)),
        )
        for (title, rows, shares), (above, below) in zip(columns, axes.T, strict=True):
            above.set_title(title, fontsize=9)
            above.bar(range(4), shares, color="#3b7dd8", width=0.8)
            above.set(xlim=(-0.5, 3.5), ylim=(0, 0.7), xticks=[], yticks=[])
            for place, share in enumerate(shares):
                above.text(place, share + 0.03, f"{100 * share:.0f} %", ha="center", fontsize=8)
            above.patch.set_alpha(0)
            above.spines[["top", "right", "left"]].set_visible(False)
            below.patch.set_alpha(0)
            if rows is None:
                below.set_axis_off()
                below.text(1.5, 0.5, "\n".join(_MIDDLE), ha="center", va="center", fontsize=9)
                below.set(xlim=(-0.5, 3.5), ylim=(0, 1))
                continue
            below.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            below.set(xticks=range(4), xticklabels=CLASSES, yticks=[])
            below.set_xlabel("class")
        axes[0, 0].set_ylabel("mean")
        axes[1, 0].set_ylabel("12 examples")
        axes[0, 1].set_xticks(range(4), CLASSES)
        figure.savefig(path, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})


_MIDDLE = (
    "optimal transport:",
    "rows near f_N and f,",
    "column means equal to f_L's",
    "→",
)


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1]))
