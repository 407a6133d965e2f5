"""The page of a run: one self-contained HTML file, from the files of the run directory alone."""

import html
import importlib.util
import json
import pathlib

from dsink_jax.report import figures
from dsink_jax.report.tables import percent, percentages

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.9rem }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child, td.text { text-align: left }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto }
""".strip()


class MissingMatplotlibError(RuntimeError):
    """Raised where the figures cannot be drawn; the message says what to install."""


def write_report(directory: pathlib.Path) -> pathlib.Path:
    """Draws the figures of a run and writes its report.html.

    Args:
      directory: a run directory with config.json, results.json and metrics.jsonl.

    Returns:
      The path of the page.

    Raises:
      MissingMatplotlibError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingMatplotlibError(
            "No figures and no page: they need matplotlib. Install matplotlib (extra `report`)."
        )
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    drawn = {
        "Training images of each class": folder / "class_counts.svg",
        "Test accuracy over training": folder / "learning_curves.svg",
        "Test accuracy by class": folder / "per_class.svg",
    }
    counts, curves, classes = drawn.values()
    figures.class_counts_figure(results["data"], counts)
    figures.learning_curves_figure([json.loads(line) for line in lines], curves)
    figures.per_class_figure(results, classes)
    page = directory / "report.html"
    page.write_text(_page(config, results, drawn), encoding="utf-8")
    return page


def _page(config, results, drawn):
    data = results["data"]
    parts = [
        f"<h1>D-SINK on {html.escape(data['name'])}</h1>",
        f"<p>{data['train_images']:,} training images, imbalance ratio {data['imbalance_ratio']:g}, "
        f"noise {html.escape(data['noise'])}, {percent(data['realised_rate'])} % wrong labels; "
        f"{data['test_images']:,} balanced test images. {html.escape(config['device'])}.</p>",
        _results(results["models"]),
        *(_figure(title, path) for title, path in drawn.items()),
        "<h2>Settings</h2>",
        _pairs(config["settings"]),
        "<h2>Versions</h2>",
        _pairs(config["versions"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>D-SINK run</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _results(models):
    head = (
        "model",
        "method",
        "last",
        "mean of last 10 evaluations",
        "best",
        "many",
        "medium",
        "few",
        "noisy corrected",
    )
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for name, entry in models.items():
        cells = "".join(f"<td>{share}</td>" for share in percentages(entry))
        method = html.escape(entry["method"])
        rows.append(f'<tr><td>{html.escape(name)}</td><td class="text">{method}</td>{cells}</tr>')
    return "<p>Accuracy in percent.</p><table>" + "\n".join(rows) + "</table>"


def _figure(title, path):
    drawing = path.read_text(encoding="utf-8")
    drawing = drawing[drawing.index("<svg") :]
    label = html.escape(title, quote=True)
    drawing = drawing.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"<figure><figcaption>{label}</figcaption>{drawing}</figure>"


def _pairs(values):
    rows = (
        f'<tr><td>{html.escape(name)}</td><td class="text">{html.escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return "<table>" + "\n".join(rows) + "</table>"
