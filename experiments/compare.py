"""D-SINK against its parts and against naive distillation at every base and weight, over seeds.

    python -m experiments.compare --seeds 0 1 2 3 4

trains what is missing of each seed's run under --runs-dir (one seed is one data draw and one training
seed), then writes comparison.csv and comparison.md to --output. Several seeds can be trained by several
processes at once, each with its own --seeds; a last call with all of them gathers the results.
"""

import dataclasses
import pathlib
import statistics
from functools import partial

from dsink_jax.flags import read_flags
from dsink_jax.report import align
from dsink_jax.training.loop import ShouldStop, never
from experiments import pipeline, plan
from experiments.command_line import errors_for_people, stopping_when_asked
from experiments.config import DIGITS, Config
from experiments.problem import Problem
from experiments.seeds import run_seeds, seed_config, writing_output
from experiments.summary import (
    LEGEND,
    Results,
    differences,
    over_seeds,
    provenance,
    seeds_ahead,
    setting,
    spread,
    write_csv,
)

NAIVE_BASES = ("cross_entropy", "logit_adjustment", "elr")
NAIVE_ALPHAS = (1.0, 3.0, 10.0, 30.0)
DSINK_BASES = ("cross_entropy", "logit_adjustment", "elr")
DSINK_ALPHAS = (3.0, 10.0)


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


def run_seed(
    comparison: Comparison, seed: int, preset: Config = DIGITS, should_stop: ShouldStop = never
) -> dict:
    """The results of one seed."""
    # Naive distillation comes with every base and weight.
    baselines = "cross_entropy,naive_tuned,noise_robust_adjusted,ensemble"
    config = seed_config(preset, comparison.runs_dir, seed, baselines=baselines)
    return pipeline.run(config, lambda problem: make_plan(problem, comparison.grid), should_stop)


def table(results: Results) -> str:
    """Mean and standard deviation over seeds of each model, and its difference to the target seed by seed."""
    rows = [("model", "method", "accuracy", "few", "corrected", "target ahead by")]
    target = over_seeds(results, "target", "last")
    for name, entry in next(iter(results.values()))["models"].items():
        last = over_seeds(results, name, "last")
        rows.append(
            (
                name,
                entry["method"],
                spread(last),
                spread(over_seeds(results, name, "few")),
                spread(over_seeds(results, name, "noisy_corrected")),
                "" if name == "target" else spread(differences(target, last)),
            )
        )
    return align(rows, left=2)


def verdict(results: Results) -> str:
    """The default target beside the best of everything that is not D-SINK."""
    target = over_seeds(results, "target", "last")
    models = next(iter(results.values()))["models"]
    rivals = {
        name: over_seeds(results, name, "last") for name, entry in models.items() if entry["role"] != "target"
    }
    best = max(rivals, key=lambda name: statistics.mean(rivals[name]))
    ahead = differences(target, rivals[best])
    return (
        f"The default target has {100 * statistics.mean(target):.1f} %, the best other model, {best}, "
        f"{100 * statistics.mean(rivals[best]):.1f} %: the target is ahead in "
        f"{seeds_ahead(ahead)} seeds, by {spread(ahead)} points."
    )


def write_markdown(path: pathlib.Path, results: Results, grid: bool) -> None:
    """The table with everything needed to read it."""
    seeds = " ".join(map(str, results))
    paragraphs = (
        "# D-SINK against its parts and against naive distillation",
        f"{setting(results)} {LEGEND} `target ahead by`: paired by seed.",
        verdict(results),
        f"```\n{table(results)}\n```",
        provenance(f"python -m experiments.compare --seeds {seeds}{' --grid' if grid else ''}", results),
    )
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def main() -> None:
    """Runs the comparison from the command line."""
    with errors_for_people(), stopping_when_asked() as should_stop:
        comparison = read_flags(Comparison, description=__doc__)
        results = run_seeds(
            comparison.seeds, comparison.output, partial(run_seed, comparison, should_stop=should_stop)
        )
        with writing_output(comparison.output):
            write_csv(comparison.output / "comparison.csv", results)
            write_markdown(comparison.output / "comparison.md", results, comparison.grid)
    print(f"\n{table(results)}\n\n{verdict(results)}")


if __name__ == "__main__":
    main()
