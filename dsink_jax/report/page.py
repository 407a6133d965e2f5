"""The page of a run: one self-contained HTML file, from the files of the run directory alone."""

import html
import json
import pathlib
import re

from dsink_jax.report import run_figures as figures
from dsink_jax.report.canvas import check_matplotlib
from dsink_jax.report.document import document
from dsink_jax.report.gallery import batch_table, load_examples, suspects_gallery
from dsink_jax.report.tables import percent, percentages

# Share of its own width below which a drawing is scrolled, not made smaller: its text has 8 points.
_NARROWEST = 0.69
_BATCH = {
    "mean f_N": "batch_noise_robust",
    "mean f": "batch_target",
    "mean f_L": "batch_imbalance_robust",
    "mean Q": "batch_surrogate",
}


def write_report(directory: pathlib.Path) -> pathlib.Path:
    """Draws the figures of a run and writes its report.html.

    Args:
      directory: a run directory with config.json, results.json and metrics.jsonl. Without examples.npz, or
        without a confusion matrix in results.json, the page lacks these parts.

    Returns:
      The path of the page.

    Raises:
      MissingMatplotlibError: if matplotlib is not installed.
    """
    check_matplotlib()
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    page = directory / "report.html"
    page.write_text(_page(config, results, metrics, load_examples(directory), folder), encoding="utf-8")
    return page


def _page(config, results, metrics, examples, folder):
    data = results["data"]
    title = f"D-SINK on {data['name']}"
    parts = [
        f"<p>{data['train_images']:,} training images, imbalance ratio {data['imbalance_ratio']:g}, "
        f"noise {html.escape(data['noise'])}, {percent(data['realised_rate'])} % wrong labels; "
        f"{data['test_images']:,} balanced test images. {html.escape(config['device'])}.</p>",
        _results(results["models"]),
        *_charts(results, metrics, folder),
        *_solver(metrics, folder),
        *([] if examples is None else _examples(examples, folder, corrupted=data["noise"] != "none")),
        "<h2>Settings</h2>",
        _pairs(config["settings"]),
        "<h2>Versions</h2>",
        _pairs(config["versions"]),
    ]
    return document(title, parts)


def _charts(results, metrics, folder):
    data = results["data"]
    path = folder / "class_counts.svg"
    yield _figure("Training images of each class", path, figures.class_counts_figure(data, path))
    path = folder / "learning_curves.svg"
    yield _figure("Test accuracy over training", path, figures.learning_curves_figure(metrics, path))
    path = folder / "group_accuracy.svg"
    yield _figure("Test accuracy by class group", path, figures.group_accuracy_figure(results, path))
    path = folder / "per_class.svg"
    yield _figure("Test accuracy by class", path, figures.per_class_figure(results, path))
    names = data.get("class_names") or [str(c) for c in range(data["num_classes"])]
    path = folder / "confusion_matrix.svg"
    for model, entry in results["models"].items():
        if "confusion_matrix" in entry:  # the target alone has one
            words = figures.confusion_matrix_figure(entry["confusion_matrix"], names, path)
            yield _figure(f"Confusion matrix of {model} on the test images", path, words)


def _solver(metrics, folder):
    path = folder / "sinkhorn.svg"
    words = figures.sinkhorn_figure(metrics, path)
    if words is not None:
        yield "<h2>Sinkhorn solver over training</h2>"
        yield _figure("Mean over the batches of each epoch", path, words)


def _examples(examples, folder, corrupted):
    path = folder / "batch_shares.svg"
    count = len(examples["batch_given"])
    words = figures.batch_shares_figure(
        {"given labels": examples["batch_given"], "true labels": examples["batch_true"]},
        {name: examples[key] for name, key in _BATCH.items()},
        examples["class_names"],
        path,
    )
    yield "<h2>A batch at the end of training</h2>"
    yield (
        f"<p>{count} training images, drawn by the data seed and not augmented. Q is solved for them with "
        "the mean of f_L as its class marginal.</p>"
    )
    yield _figure("Share of each class in the batch", path, words)
    yield (
        "<p>Some of them, with the class each model holds most likely, and how much so."
        + (" Where a row is shaded, the given label is wrong.</p>" if corrupted else "</p>")
    )
    yield batch_table(examples)
    yield "<h2>The most suspicious labels</h2>"
    yield suspects_gallery(examples, corrupted=corrupted)


def _results(models):
    numbers = ("last", "mean of last 10 evaluations", "best", "many", "medium", "few", "noisy corrected")
    head = [("model", ""), ("method", ' class="text"'), *((name, "") for name in numbers)]
    rows = ["<tr>" + "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in head) + "</tr>"]
    for name, entry in models.items():
        cells = "".join(f"<td>{share}</td>" for share in percentages(entry))
        method = html.escape(entry["method"])
        rows.append(f'<tr><td>{html.escape(name)}</td><td class="text">{method}</td>{cells}</tr>')
    return '<p>Accuracy in percent.</p><div class="wide"><table>' + "\n".join(rows) + "</table></div>"


def _figure(title, path, words):
    drawing = path.read_text(encoding="utf-8")
    drawing = drawing[drawing.index("<svg") :]
    width = float(re.findall(r'width="([\d.]+)pt"', drawing)[0])
    caption = html.escape(title)
    label = html.escape(f"{title}: {words}", quote=True)
    attributes = f'role="img" aria-label="{label}" style="min-width: {_NARROWEST * width:.0f}pt"'
    drawing = drawing.replace("<svg", f"<svg {attributes}", 1)
    return f'<figure><figcaption>{caption}</figcaption><div class="wide">{drawing}</div></figure>'


def _pairs(values):
    rows = (
        f'<tr><td>{html.escape(name)}</td><td class="text">{html.escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return '<div class="wide"><table class="pairs">' + "\n".join(rows) + "</table></div>"
