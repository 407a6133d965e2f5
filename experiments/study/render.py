"""Tables and figures of a study, from its CSV files alone."""

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from dsink_jax.report import align
from experiments.environments import environments_in_words
from experiments.study import beside, drawings, records
from experiments.study.catalogue import Study
from experiments.study.paired import ahead, by_seed, spread
from experiments.study.records import Row

LEGEND = (
    "Percent on the balanced test set after the last epoch, mean ± standard deviation over seeds; a seed is "
    "one corrupted set and one training, `n` of them. `few`: the rarest third of the classes. `corrected`, "
    "`memorised`: wrong training labels for which the true class, or the wrong label itself, is predicted. "
    "`ahead by`: "
    "points of {measure} by which {who}, mean of the paired differences with its 95 % interval (Student's "
    "t), and in how many seeds."
)


def render(folder: pathlib.Path, study: Study, name: str) -> str:
    """Writes `README.md` and the figures of a study's folder, and returns the text.

    Args:
      folder: with results.csv and the others.
      study: what was studied.
      name: of the study.
    """
    rows = records.read(folder, "results.csv")
    paragraphs = [f"# {study.title}", study.question]
    if not rows:
        paragraphs.append("Nothing has been run yet.")
    else:
        paragraphs += [_legend(study), *_verdicts(study, rows)]
    for budget in dict.fromkeys(row["budget"] for row in rows):
        of_budget = [row for row in rows if row["budget"] == budget]
        paragraphs.append(f"## Budget `{budget}`")
        for file, alternative in drawings.draw(folder, study, budget, of_budget):
            paragraphs.append(f"![{alternative}]({file})")
        for setting, group in _groups(of_budget).items():
            paragraphs += [f"### {_describe(setting, group)}", f"```\n{table(study, group)}\n```"]
            if pairs := beside.beside(study, group):
                paragraphs.append(f"```\n{beside.table(pairs)}\n```")
            if (solved := solver_table(group)) is not None:
                paragraphs.append(f"```\n{solved}\n```")
        paragraphs.append(_provenance(folder, name, budget, of_budget))
    text = "\n\n".join(paragraphs) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    return text


def table(study: Study, rows: Sequence[Row]) -> str:
    """The models of one setting side by side."""
    lines = [("model", "n", "accuracy", "few", "corrected", "memorised", "ahead by")]
    target = by_seed(rows, study.target, study.measure)
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        shares = ([row[key] for row in of_model] for key in _SHOWN)
        pair = target, by_seed(rows, model, study.measure)
        by = "" if model == study.target else ahead(*(pair[::-1] if study.others_ahead else pair))
        lines.append((model, str(len(of_model)), *map(spread, shares), by))
    return align(lines, left=1)


def solver_table(rows: Sequence[Row]) -> str | None:
    """What the solver did in the trainings of one setting; None if nothing is known of it."""
    lines = [("solver, mean over the training", "iterations", "batches converged", "error of the marginal")]
    solved = [row for row in rows if row.get("iterations") is not None]
    for model in dict.fromkeys(row["model"] for row in solved):
        of_model = [row for row in solved if row["model"] == model]
        mean = {key: statistics.mean(row[key] for row in of_model) for key in _SOLVER}
        lines.append((model, *(form.format(mean[key]) for key, form in _SOLVER.items())))
    return align(lines, left=1) if solved else None


_SOLVER = {"iterations": "{:.0f}", "converged": "{:.0%}", "marginal_error": "{:.1e}"}
_SHOWN = ("last", "few", "noisy_corrected", "noisy_memorised")


def _legend(study):
    target = f"`{study.target}`"
    who = f"a model is ahead of {target}" if study.others_ahead else f"{target} is ahead"
    return LEGEND.format(measure={"last": "accuracy", "few": "`few`"}[study.measure], who=who)


def _verdicts(study, rows):
    """For each setting what the table comes to."""
    verdict = _beside if study.beside else _not_ahead if study.others_ahead else _best_rival
    groups = _groups(rows, "budget", "setting").items()
    lines = [f"- {setting} ({budget}): {verdict(study, group)}" for (budget, setting), group in groups]
    return ["\n".join(lines)] if lines else []


def _beside(study, rows):
    """What the models come to beside those they are to improve on."""
    pairs = beside.beside(study, rows)
    return beside.verdict(pairs) if pairs else "not complete"


def _not_ahead(study, rows):
    """Which models are not ahead of the target on average."""
    target = by_seed(rows, study.target, study.measure)
    behind = []
    for model in dict.fromkeys(row["model"] for row in rows if row["model"] != study.target):
        other = by_seed(rows, model, study.measure)
        seeds = [seed for seed in target if seed in other]
        if seeds and not statistics.mean(other[seed] - target[seed] for seed in seeds) > 0:
            behind.append(f"`{model}` {ahead(other, target)}")
    return f"not ahead of `{study.target}`: {', '.join(behind) or 'none'}"


def _best_rival(study, rows):
    """The target beside the best of all others that are no D-SINK."""
    target = by_seed(rows, study.target)
    rivals = {row["model"]: by_seed(rows, row["model"]) for row in rows if row["role"] != "target"}
    rivals = {name: known for name, known in rivals.items() if known.keys() >= target.keys()}
    if not target or not rivals:
        return "not complete"
    means = {name: statistics.mean(known[seed] for seed in target) for name, known in rivals.items()}
    best = max(means, key=means.get)
    best_of_each = {seed: max(known[seed] for known in rivals.values()) for seed in target}
    return (
        f"`{study.target}` {spread(target.values())}, the best that is no D-SINK, `{best}`, "
        f"{spread([rivals[best][seed] for seed in target])}: ahead by {ahead(target, rivals[best])}; "
        f"of whichever is best in each seed by {ahead(target, best_of_each)}"
    )


def _groups(rows, *keys):
    """Rows by their setting, or by several of their fields."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys) if keys else row["setting"], []).append(row)
    return groups


def _describe(setting, rows):
    images = sorted({row["train_images"] for row in rows})
    wrong = statistics.mean(row["wrong_labels"] for row in rows)
    count = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    return f"{setting}: {count} images, {100 * wrong:.0f} % wrong labels"


def _provenance(folder, name, budget, rows):
    """The command, the time it took, the device, the versions and the date."""
    seeds = " ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    hours = sum(row["seconds"] for row in rows) / 3600
    return (
        f"`python -m experiments.study {name} --budget {budget} --seeds {seeds}`; {hours:.1f} hours of "
        f"training in all. {environments_in_words(folder, rows)}."
    )
