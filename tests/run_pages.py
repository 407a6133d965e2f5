"""The files of a run directory made by hand, and a strict reader of pages."""

import html.parser
import json

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
