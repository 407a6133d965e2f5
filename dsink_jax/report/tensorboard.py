"""The records of a run as TensorBoard event files, if tensorboardX is installed."""

import importlib.util
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any


def write_events(directory: pathlib.Path) -> pathlib.Path | None:
    """Writes the scalars of metrics.jsonl under tensorboard/<model>/, in place of what was there.

    Written anew each time, so a run that was killed and went on has every epoch once.

    Args:
      directory: a run directory with metrics.jsonl.

    Returns:
      The folder, or None if tensorboardX is not installed (extra `report`).
    """
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    from tensorboardX import SummaryWriter

    folder = directory / "tensorboard"
    for old in folder.glob("*/events.out.tfevents.*"):
        old.unlink()
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    writers = {}
    try:
        for record in map(json.loads, lines):
            name = re.sub(r"[^\w-]", "_", record["model"])
            if name not in writers:
                writers[name] = SummaryWriter(str(folder / name))
            for tag, value in scalars(record):
                writers[name].add_scalar(tag, value, record["epoch"])
    finally:
        for writer in writers.values():
            writer.close()
    return folder


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of one record by tag: `train/...` for means over the epoch, `evaluation/...` for the rest.

    >>> list(scalars({"model": "target", "epoch": 1, "train": {"loss": 2.0}, "accuracy": 0.5, "few": None}))
    [('train/loss', 2.0), ('evaluation/accuracy', 0.5)]
    """
    parts = {"train": record.get("train", {}), "evaluation": record}
    for part, values in parts.items():
        for name, value in values.items():
            if isinstance(value, int | float) and name != "epoch":
                yield f"{part}/{name}", float(value)
