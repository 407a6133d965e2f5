"""Results over several seeds as rows, tables and one line of provenance."""

import csv
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax

from experiments.run_directory import device_description, versions_in_words

Results = dict[int, dict]  # content of results.json by seed

LEGEND = (
    "`few`: the rarest third of the classes. "
    "`corrected`: wrong training labels whose true class is predicted."
)
_MEASURES = ("last", "mean_last_10", "best", "many", "medium", "few", "noisy_corrected", "calibration_error")


def measures(entry: dict) -> dict[str, float | None]:
    """The numbers of one model of one seed, shares in [0, 1]; None for what is not known."""
    flat = {**entry["accuracy"], **entry}
    return {name: flat[name] for name in _MEASURES}


def over_seeds(results: Results, model: str, measure: str) -> list[float]:
    """One measure of one model, seed by seed."""
    return [measures(result["models"][model])[measure] for result in results.values()]


def differences(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Paired differences, seed by seed."""
    return [a - b for a, b in zip(one, other, strict=True)]


def seeds_ahead(ahead: Sequence[float]) -> str:
    """How many of the paired differences are above 0, such as `3 of 5`."""
    return f"{sum(value > 0 for value in ahead)} of {len(ahead)}"


def spread(shares: Sequence[float | None]) -> str:
    """Mean and standard deviation in percent, or `-` if any is not known."""
    if any(share is None for share in shares):
        return "-"
    mean = 100 * statistics.mean(shares)
    return f"{mean:.1f} ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else f"{mean:.1f}"


def write_csv(path: pathlib.Path, results: Results) -> None:
    """One row per seed and model."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("seed", "model", "method", *_MEASURES, "seconds"))
        for seed, result in results.items():
            for name, entry in result["models"].items():
                values = ("" if value is None else f"{value:.4f}" for value in measures(entry).values())
                writer.writerow((seed, name, entry["method"], *values, f"{entry['seconds']:.1f}"))


def setting(results: Results) -> str:
    """The data of the runs in words."""
    data = next(iter(results.values()))["data"]
    rate = "" if data["nominal_rate"] is None or data["noise"] == "none" else f" {data['nominal_rate']:g}"
    return (
        f"{data['train_images']} training images of {data['name']}, imbalance ratio "
        f"{data['imbalance_ratio']:g}, noise {data['noise']}{rate}; {data['test_images']} balanced test "
        f"images. Accuracy in percent at the last epoch, mean ± standard deviation over seeds "
        f"{' '.join(map(str, results))}; a seed is one corrupted set and one training."
    )


def provenance(command: str, results: Results) -> str:
    """The command, the time it took, the device, the versions and the date."""
    seconds = sum(entry["seconds"] for result in results.values() for entry in result["models"].values())
    return (
        f"`{command}`; {seconds / 3600:.1f} hours of training in all; "
        f"{device_description(jax.local_devices())}; {versions_in_words()}; {time.strftime('%Y-%m-%d')}."
    )
