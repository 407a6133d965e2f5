"""D-SINK against its parts and against naive distillation at every base and weight, over seeds.

    python -m experiments.compare --seeds 0 1 2 3 4

trains what is missing of each seed's run under --runs-dir (one seed is one data draw and one training
seed), then writes comparison.csv and comparison.md to --output. Several seeds can be trained by several
processes at once, each with its own --seeds; a last call with all of them gathers the results.
"""

import csv
import dataclasses
import pathlib
import statistics
import time

import jax
import tyro

from dsink_jax.errors import InputError
from dsink_jax.report import align
from experiments import pipeline, plan
from experiments.command_line import errors_for_people
from experiments.config import DIGITS, Config
from experiments.problem import Problem
from experiments.run_directory import device_description, versions

NAIVE_BASES = ("cross_entropy", "logit_adjustment", "elr")
NAIVE_ALPHAS = (1.0, 3.0, 10.0, 30.0)
DSINK_BASES = ("cross_entropy", "logit_adjustment", "elr")
DSINK_ALPHAS = (3.0, 10.0)
_MEASURES = ("last", "mean_last_10", "best", "many", "medium", "few", "noisy_corrected", "calibration_error")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Compares D-SINK with its parts and with naive distillation on the digits, over seeds."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds; each decides the corrupted set and the training."""
    runs_dir: pathlib.Path = pathlib.Path("runs/comparison")
    """Where the runs are."""
    output: pathlib.Path = pathlib.Path("results/digits")
    """Where the table goes."""
    grid: bool = False
    """Whether to train D-SINK at every base and weight too, not at its default alone."""


def make_plan(problem: Problem, grid: bool) -> list[plan.Spec]:
    """The models of one seed: the default run's, and naive distillation and D-SINK over bases and alphas."""
    specs = plan.plan(problem)
    for base in NAIVE_BASES:
        for alpha in NAIVE_ALPHAS:
            config = dataclasses.replace(problem.config, base=base, naive_alpha=alpha)
            specs.append(plan.naive_spec(problem, config, f"naive_{base}_{alpha:g}"))
    if grid:
        for base in DSINK_BASES:
            for alpha in DSINK_ALPHAS:
                config = dataclasses.replace(problem.config, base=base, alpha=alpha)
                if config == problem.config:
                    continue  # the target itself
                specs.append(plan.target_spec(problem, config, f"dsink_{base}_{alpha:g}"))
    return specs


def run_seed(comparison: Comparison, seed: int, preset: Config = DIGITS) -> dict:
    """The results of one seed."""
    config = dataclasses.replace(
        preset,
        seed=seed,
        data_seed=seed,
        run_dir=comparison.runs_dir / f"seed-{seed}",
        baselines="cross_entropy",  # naive distillation comes with every base and weight
        evaluate_every=max(preset.epochs // 25, 1),
    )
    return pipeline.run(config, lambda problem: make_plan(problem, comparison.grid))


def measures(entry: dict) -> dict[str, float]:
    """The numbers of one model of one seed, shares in [0, 1]."""
    flat = {**entry["accuracy"], **entry}
    return {name: flat[name] for name in _MEASURES}


def write_csv(path: pathlib.Path, results: dict[int, dict]) -> None:
    """One row per seed and model."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("seed", "model", "method", *_MEASURES, "seconds"))
        for seed, result in results.items():
            for name, entry in result["models"].items():
                values = (f"{value:.4f}" for value in measures(entry).values())
                writer.writerow((seed, name, entry["method"], *values, f"{entry['seconds']:.1f}"))


def table(results: dict[int, dict]) -> str:
    """Mean and standard deviation over seeds of each model, and its difference to the target seed by seed."""
    rows = [("model", "method", "accuracy", "few", "corrected", "target ahead by")]
    runs = list(results.values())
    for name, entry in runs[0]["models"].items():
        entries = [run["models"][name] for run in runs]
        ahead = [
            run["models"]["target"]["accuracy"]["last"] - run["models"][name]["accuracy"]["last"]
            for run in runs
        ]
        cells = [
            spread([entry["accuracy"]["last"] for entry in entries]),
            *(spread([entry[key] for entry in entries]) for key in ("few", "noisy_corrected")),
            "" if name == "target" else spread(ahead),
        ]
        rows.append((name, entry["method"], *cells))
    return align(rows, left=2)


def spread(shares: list[float]) -> str:
    """Mean and standard deviation in percent."""
    mean = 100 * statistics.mean(shares)
    return f"{mean:.1f} ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else f"{mean:.1f}"


def verdict(results: dict[int, dict]) -> str:
    """The default target beside the best of everything that is not D-SINK."""
    runs = list(results.values())

    def mean(name):
        return statistics.mean(run["models"][name]["accuracy"]["last"] for run in runs)

    rivals = [name for name, entry in runs[0]["models"].items() if entry["role"] != "target"]
    best = max(rivals, key=mean)
    ahead = [
        run["models"]["target"]["accuracy"]["last"] - run["models"][best]["accuracy"]["last"] for run in runs
    ]
    return (
        f"The default target, {100 * mean('target'):.1f} %, is ahead of the best other model, {best} with "
        f"{100 * mean(best):.1f} %, by {spread(ahead)} points."
    )


def write_markdown(path: pathlib.Path, results: dict[int, dict]) -> None:
    """The table with everything needed to read it."""
    data = next(iter(results.values()))["data"]
    seconds = sum(entry["seconds"] for run in results.values() for entry in run["models"].values())
    seeds = " ".join(map(str, results))
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    paragraphs = (
        f"# D-SINK against its parts and against naive distillation: {data['name']}",
        f"{data['train_images']} training images, imbalance ratio {data['imbalance_ratio']:g}, noise "
        f"{data['noise']} {data['nominal_rate']}; {data['test_images']} balanced test images. Accuracy in "
        f"percent at the last epoch, mean ± standard deviation over seeds {seeds}; a seed is one corrupted "
        "set and one training. `few`: the rarest third of the classes. `corrected`: wrong training labels "
        "whose true class is predicted. `target ahead by`: paired by seed.",
        verdict(results),
        f"```\n{table(results)}\n```",
        f"`python -m experiments.compare --seeds {seeds}`; {seconds / 3600:.1f} hours of training in all; "
        f"{device_description(jax.local_devices())}; {found}; {time.strftime('%Y-%m-%d')}.",
    )
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def main() -> None:
    """Runs the comparison from the command line."""
    comparison = tyro.cli(Comparison, description=__doc__)
    with errors_for_people():
        if not comparison.seeds:
            raise InputError("--seeds needs at least one seed.")
        results = {seed: run_seed(comparison, seed) for seed in comparison.seeds}
    comparison.output.mkdir(parents=True, exist_ok=True)
    write_csv(comparison.output / "comparison.csv", results)
    write_markdown(comparison.output / "comparison.md", results)
    print(f"\n{table(results)}\n\n{verdict(results)}")


if __name__ == "__main__":
    main()
