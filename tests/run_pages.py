"""The files of a run directory made by hand, and a strict reader of pages."""

import html.parser
import json

import numpy as np

NAN = float("nan")
HOSTILE = '<script>alert("1")</script>&\'--><b>'


def entry(role, method, last, mean, best, shares, seconds, per_class):
    many, medium, few, corrected = shares
    return {
        "role": role,
        "method": method,
        "accuracy": {"last": last, "mean_last_10": mean, "best": best},
        "per_class": per_class,
        "many": many,
        "medium": medium,
        "few": few,
        "noisy_corrected": corrected,
        "calibration_error": 0.05,
        "seconds": seconds,
    }


def some_results(name="cifar10", noise="symmetric"):
    """What a run of three models leaves in results.json."""
    return {
        "models": {
            "imbalance_robust": entry(
                "auxiliary",
                "logit_adjustment",
                0.5123,
                0.5014,
                0.6258,
                (0.91, 0.52, 0.13, 0.2222),
                61.4,
                [0.9, 0.5, 0.1],
            ),
            "noise_robust": entry(
                "auxiliary", "elr", 0.7031, 0.6999, 0.7133, (0.95, NAN, 0.02, None), 59.6, [0.9, None, 0.0]
            ),
            "target": entry(
                "target",
                "elr + 3 D-SINK",
                0.8888,
                0.8764,
                0.8901,
                (1.0, 0.777, 0.0, NAN),
                3725.0,
                [1, 1, 1],
            ),
        },
        "data": {
            "name": name,
            "source": "files in /data",
            "num_classes": 3,
            "train_images": 12_406,
            "test_images": 10_000,
            "imbalance_ratio": 100.0,
            "noise": noise,
            "nominal_rate": 0.4,
            "realised_rate": 0.3579,
            "counts_before": [50, 50, 50],
            "clean_counts": [50, 15, 5],
            "noisy_counts": [40, 20, 10],
            "class_map": None,
            "data_seed": 0,
            "sha256": "ab" * 32,
        },
    }


def write_run(directory, results=None, settings=None):
    """The files of a run directory, as the experiments write them."""
    results = some_results() if results is None else results
    config = {
        "settings": {"dataset": "cifar10", "alpha": 3.0, "flip": True, "run_dir": None} | (settings or {}),
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "device": "8 x cpu (x86_64, 2 cores)",
    }
    records = [
        {"model": model, "epoch": epoch, "train": {"loss": 1 / epoch}, "accuracy": 0.1 * epoch}
        for model in results["models"]
        for epoch in (1, 2, 3)
    ]
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "results.json").write_text(json.dumps(results, indent=2))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return directory


NAMES = ["aeroplane", "car", "bird"]
CONFUSION = [[8, 2, 0], [1, 7, 2], [0, 5, 5]]


def some_examples(names=NAMES, channels=3, suspects=4):
    """What a run leaves in examples.npz: a batch of 6, 3 of them shown, and suspicious labels."""
    rng = np.random.default_rng(0)
    models = {
        f"batch_{name}": rng.dirichlet(np.ones(3), 6).astype(np.float32)
        for name in ("target", "noise_robust", "imbalance_robust", "surrogate")
    }
    return {
        "class_names": np.array(names),
        "batch_index": np.arange(6),
        "batch_true": np.array([0, 0, 0, 1, 1, 2]),
        "batch_given": np.array([0, 1, 0, 1, 1, 0]),
        **models,
        "shown_rows": np.array([1, 5, 0]),
        "shown_index": np.array([101, 105, 100]),
        "shown_images": rng.integers(0, 256, (3, 5, 4, channels), np.uint8),
        "suspect_index": np.arange(200, 200 + suspects),
        "suspect_images": rng.integers(0, 256, (suspects, 5, 4, channels), np.uint8),
        "suspect_true": np.array([0, 1, 2, 0])[:suspects],
        "suspect_given": np.array([1, 1, 0, 2])[:suspects],
        "suspect_proposed": np.array([0, 2, 1, 0])[:suspects],
        "suspect_confidence": np.array([0.991, 0.752, 0.5, 0.4])[:suspects],
        "suspect_given_share": np.array([0.00002, 0.011, 0.02, 0.3])[:suspects],
    }


def write_whole_run(directory, examples=None, names=NAMES):
    """A run directory with all that the page can show."""
    results = some_results()
    results["data"]["class_names"] = names
    results["models"]["target"]["confusion_matrix"] = CONFUSION
    write_run(directory, results)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["model"] == "target":
            line["train"] |= {
                "sinkhorn_iterations": 10.0 * line["epoch"],
                "marginal_error": 1e-6 / line["epoch"],
                "sinkhorn_converged": 1 - 0.25 * (line["epoch"] == 1),
            }
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.savez_compressed(
        directory / "examples.npz", **(some_examples(names) if examples is None else examples)
    )
    return directory


class Page(html.parser.HTMLParser):
    """Reads a page, insisting that every element is closed where it should be."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text, self.tables = [], [], [], []
        self.declarations = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_decl(self, decl):
        self.declarations.append(decl)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    @property
    def tags(self):
        return {tag for tag, _ in self.elements}
