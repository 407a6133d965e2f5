"""The auxiliary methods on the digits: each alone, and D-SINK over a grid of pairs.

    python -m experiments.auxiliaries imbalance     # imbalance-robust methods without label noise
    python -m experiments.auxiliaries noise         # noise-robust methods without imbalance
    python -m experiments.auxiliaries reweighting   # optimal-transport re-weighting in its variants
    python -m experiments.auxiliaries grid          # D-SINK for every pair of f_L and f_N

trains what is missing of each seed's run under --runs-dir, then writes a table (.md), all numbers (.csv)
and, for the grid, a heat map (.svg) to --output. Several seeds can be trained by several processes at once,
each with its own --seeds; a last call with all of them gathers the results.
"""

import dataclasses
import importlib.util
import pathlib
import statistics
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from dsink_jax.errors import InputError
from dsink_jax.flags import read_flags
from dsink_jax.methods import METHODS, build_method
from dsink_jax.methods.registry import option_name
from dsink_jax.report import align, heat_map_figure
from dsink_jax.training.loop import ShouldStop, never
from experiments import pipeline
from experiments.command_line import errors_for_people, stopping_when_asked
from experiments.config import DIGITS, Config, MethodOptions
from experiments.plan import Spec, auxiliary_spec, baseline_spec, target_spec
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

# What the methods have to be told: nothing that a person with such data would not know.
TOLD = {
    "ot_reweighting_meta_per_class": 5,
    "ot_reweighting_meta_labels": "observed",
    "coteaching_noise_rate": "estimated",
}
REWEIGHTING = ("class_balanced", "logit_adjustment", "crt", "ot_reweighting")
GRID_IMBALANCE = (
    "logit_adjustment",
    "posthoc_logit_adjustment",
    "ldam_drw",
    "crt",
    "ot_reweighting",
)
GRID_NOISE = ("elr", "gce", "truncated_gce", "sce", "mixup", "coteaching", "dividemix")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Runs one study of the auxiliary methods on the digits, over seeds."""

    study: Annotated[Literal["imbalance", "noise", "reweighting", "grid"], tyro.conf.Positional]
    """Which study."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each decides the corrupted set and the training."""
    runs_dir: pathlib.Path = pathlib.Path("runs/auxiliaries")
    """Where the runs are."""
    output: pathlib.Path = pathlib.Path("results/auxiliaries")
    """Where the tables go."""


@dataclasses.dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
      title: of its table.
      changes: what is changed in the digits' settings.
      methods: names of the methods in it.
      make_plan: its models but the variants.
      describe: paragraphs between the setting and the provenance.
      variants: further baselines by their names: a method and the options that are not as in `methods`.
    """

    title: str
    changes: dict
    methods: tuple[str, ...]
    make_plan: Callable[[Problem], list[Spec]]
    describe: Callable[[Results], list[str]]
    variants: dict[str, tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=dict)

    def plan(self, problem: Problem) -> list[Spec]:
        """All models."""
        variants = (_variant_spec(problem, name, *variant) for name, variant in self.variants.items())
        return [*self.make_plan(problem), *variants]


def _variant_spec(problem, name, method, changes):
    """A method with some of its options changed, as a baseline."""
    changes = {option_name(method, option): value for option, value in changes.items()}
    options = dataclasses.replace(problem.config.options, **changes)
    return Spec(name, "baseline", name, build_method(method, problem.facts, options))


def _methods_for(robust_to):
    return tuple(name for name, entry in METHODS.items() if entry.robust_to == robust_to)


def _alone(names):
    """Cross-entropy and each method by itself, all from the same start."""
    return lambda problem: [baseline_spec(problem, name) for name in ("cross_entropy", *names)]


def _grid_plan(problem):
    specs = [auxiliary_spec(problem, name, f"f_L_{name}", for_noise=False) for name in GRID_IMBALANCE]
    specs += [auxiliary_spec(problem, name, f"f_N_{name}", for_noise=True) for name in GRID_NOISE]
    for imbalance in GRID_IMBALANCE:
        for noise in GRID_NOISE:
            spec = target_spec(problem, problem.config, f"dsink_{imbalance}_{noise}")
            specs.append(spec._replace(auxiliaries=(f"f_N_{noise}", f"f_L_{imbalance}")))
    return specs


def _against_cross_entropy(measure):
    """Paragraphs: a table, and which methods are not ahead of cross-entropy in `measure`."""

    def describe(results):
        models = next(iter(results.values()))["models"]
        plain = over_seeds(results, "cross_entropy", measure)
        ahead_by = f"{measure} ahead of cross-entropy by"
        rows = [("method", "accuracy", "few", "corrected", ahead_by, "seeds ahead")]
        behind = []
        for name in models:
            ahead = differences(over_seeds(results, name, measure), plain)
            rows.append(
                (
                    name,
                    *(spread(over_seeds(results, name, key)) for key in ("last", "few", "noisy_corrected")),
                    "" if name == "cross_entropy" else spread(ahead),
                    "" if name == "cross_entropy" else seeds_ahead(ahead),
                )
            )
            if name != "cross_entropy" and not statistics.mean(ahead) > 0:
                behind.append(name)
        verdict = (
            f"Not ahead of cross-entropy on average: {', '.join(behind)}."
            if behind
            else "Every method is ahead of cross-entropy on average."
        )
        stages = [
            name
            for name in models
            if "share" in models[name]["definition"] and not models[name]["definition"].get("cuts_first")
        ]
        longer = f"Trained longer, by a second stage: {', '.join(stages)}." if stages else ""
        return [verdict, f"```\n{align(rows, left=1)}\n```", *([longer] if longer else [])]

    return describe


def _describe_reweighting(results):
    """The table, and what learning the weights adds to where they start."""

    def ahead_of(name):
        ahead = differences(over_seeds(results, "ot_reweighting", "last"), over_seeds(results, name, "last"))
        return f"{spread(ahead)} points ({seeds_ahead(ahead)} seeds)"

    return [
        f"ot_reweighting is ahead of cross-entropy by {ahead_of('cross_entropy')}, of class_balanced by "
        f"{ahead_of('class_balanced')}, and of itself with the weights frozen at their class-balanced start "
        f"by {ahead_of('ot_reweighting_frozen')}.",
        *_against_cross_entropy("last")(results),
    ]


class Cell(NamedTuple):
    """One pair of the grid, seed by seed.

    Attributes:
      parts: accuracies of f_L and f_N.
      target: accuracy of D-SINK.
      ahead: by how much it is ahead of the better part.
    """

    parts: tuple[list[float], list[float]]
    target: list[float]
    ahead: list[float]


def _grid_cells(results):
    """The cells of the grid by the names of f_L and f_N, row by row."""
    cells = {}
    for imbalance in GRID_IMBALANCE:
        for noise in GRID_NOISE:
            names = (f"f_L_{imbalance}", f"f_N_{noise}", f"dsink_{imbalance}_{noise}")
            *parts, target = (over_seeds(results, name, "last") for name in names)
            better = [max(pair) for pair in zip(*parts, strict=True)]
            cells[imbalance, noise] = Cell(tuple(parts), target, differences(target, better))
    return cells


def _describe_grid(results):
    cells = _grid_cells(results)
    rows = [("f_L", "f_N", "f_L alone", "f_N alone", "D-SINK", "ahead of the better part", "seeds")]
    for pair, (parts, target, ahead) in cells.items():
        rows.append((*pair, *map(spread, parts), spread(target), spread(ahead), seeds_ahead(ahead)))
    means = {pair: statistics.mean(cell.ahead) for pair, cell in cells.items()}
    failing = [f"{' x '.join(pair)} ({100 * mean:+.1f})" for pair, mean in means.items() if not mean > 0]
    single = [value for cell in cells.values() for value in cell.ahead]
    verdict = (
        f"D-SINK is ahead of the better of its two parts in {seeds_ahead(list(means.values()))} pairs on "
        f"average over the seeds, and in {seeds_ahead(single)} single runs; by "
        f"{100 * statistics.mean(means.values()):.1f} points on average over all pairs, "
        f"{100 * min(means.values()):+.1f} at worst, {100 * max(means.values()):+.1f} at best."
    )
    fails = f"Where it is not ahead: {'; '.join(failing) or 'nowhere'}."
    return [verdict, fails, "![heat map](grid.svg)", f"```\n{align(rows, left=2)}\n```"]


def draw_grid(path: pathlib.Path, results: Results) -> None:
    """The heat map of how far D-SINK is ahead of the better of its parts."""
    points = {pair: 100 * statistics.mean(cell.ahead) for pair, cell in _grid_cells(results).items()}
    heat_map_figure(
        [[points[row, column] for column in GRID_NOISE] for row in GRID_IMBALANCE],
        GRID_IMBALANCE,
        GRID_NOISE,
        path,
        row_label="f_L",
        column_label="f_N",
        title="accuracy of D-SINK less that of the better of f_L and f_N (points)",
    )


STUDIES = {
    "imbalance": Study(
        "Imbalance-robust methods alone, without label noise",
        {"noise": "none", "imbalance_ratio": 30.0},
        _methods_for("imbalance"),
        _alone(_methods_for("imbalance")),
        _against_cross_entropy("few"),
    ),
    "noise": Study(
        "Noise-robust methods alone, without imbalance",
        {"imbalance_ratio": 1.0},
        _methods_for("noise"),
        _alone(_methods_for("noise")),
        _against_cross_entropy("last"),
        {
            "soft_bootstrapping_0.8": ("soft_bootstrapping", {"beta": 0.8}),
            "soft_bootstrapping_0.5": ("soft_bootstrapping", {"beta": 0.5}),
        },
    ),
    "reweighting": Study(
        "Re-weighting by optimal transport, without label noise",
        {"noise": "none", "imbalance_ratio": 20.0},
        REWEIGHTING,
        _alone(REWEIGHTING),
        _describe_reweighting,
        {
            "ot_reweighting_feature": ("ot_reweighting", {"cost": "feature"}),
            "ot_reweighting_label": ("ot_reweighting", {"cost": "label"}),
            "ot_reweighting_whole": ("ot_reweighting", {"meta_set": "whole"}),
            "ot_reweighting_network": ("ot_reweighting", {"trains": "network"}),
            "ot_reweighting_frozen": ("ot_reweighting", {"weight_rate": 0.0, "weight_decay": 0.0}),
            "ot_reweighting_fast": ("ot_reweighting", {"weight_rate": 10.0}),
            # Stages as published, with the rate and weight that did best on other digits.
            "ot_reweighting_early": (
                "ot_reweighting",
                {"share": 0.36, "cuts_first": True, "learning_rate_factor": 0.3, "meta_weight": 1.0},
            ),
        },
    ),
    "grid": Study(
        "D-SINK for every pair of auxiliary methods",
        {},
        (*GRID_IMBALANCE, *GRID_NOISE),
        _grid_plan,
        _describe_grid,
    ),
}


def run_seed(settings: Settings, seed: int, preset: Config = DIGITS, should_stop: ShouldStop = never) -> dict:
    """The results of one seed."""
    return pipeline.run(study_config(settings, seed, preset), STUDIES[settings.study].plan, should_stop)


def study_config(settings: Settings, seed: int, preset: Config = DIGITS) -> Config:
    """The settings of one seed's run."""
    study = STUDIES[settings.study]
    told = {name: value for name, value in TOLD.items() if name.startswith(study.methods)}
    if settings.study in ("imbalance", "reweighting"):
        told["ot_reweighting_meta_per_class"] = 3  # the rarest class has no more than 4 and 7 images
    return seed_config(
        preset,
        settings.runs_dir / settings.study,
        seed,
        baselines=",".join(study.methods),
        options=MethodOptions(**told),
        **study.changes,
    )


def write_markdown(path: pathlib.Path, settings: Settings, results: Results) -> None:
    """The table with everything needed to read it."""
    study = STUDIES[settings.study]
    seeds = " ".join(map(str, results))
    variants = "; ".join(
        f"{name}: {method} with {', '.join(f'{option} {value}' for option, value in changes.items())}"
        for name, (method, changes) in study.variants.items()
    )
    paragraphs = (
        f"# {study.title}",
        f"{setting(results)} {LEGEND} Differences are paired by seed.",
        *study.describe(results),
        *([f"Variants: {variants}."] if variants else []),
        provenance(f"python -m experiments.auxiliaries {settings.study} --seeds {seeds}", results),
    )
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def main() -> None:
    """Runs a study from the command line."""
    with errors_for_people(), stopping_when_asked() as should_stop:
        settings = read_flags(Settings, description=__doc__)
        if settings.study == "grid" and importlib.util.find_spec("matplotlib") is None:
            raise InputError("The grid's heat map needs matplotlib: pip install '.[report]'")
        results = run_seeds(
            settings.seeds, settings.output, partial(run_seed, settings, should_stop=should_stop)
        )
        path = settings.output / f"{settings.study}.md"
        with writing_output(settings.output):
            write_csv(settings.output / f"{settings.study}.csv", results)
            write_markdown(path, settings, results)
            if settings.study == "grid":
                draw_grid(settings.output / "grid.svg", results)
    print(f"\n{path.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
