"""Tables and figures of a study, from its CSV files alone."""

import pathlib

import pandas as pd

from dsink_jax.report import align
from experiments.environments import COLUMN, environments_in_words
from experiments.study import beside, drawings, records
from experiments.study.catalogue import Study
from experiments.study.models import with_needs
from experiments.study.paired import ahead, by_seed, spread
from experiments.study.predictions import Predictions

LEGEND = (
    "Percent on the balanced test set after the last epoch, mean ± standard deviation over seeds; a seed is "
    "one corrupted set and one training, `n` of them. `few`: the rarest third of the classes. `corrected`, "
    "`memorised`: wrong training labels for which the true class, or the wrong label itself, is predicted. "
    "`ahead by`: "
    "points of {measure} by which {who}, mean of the paired differences with its 95 % interval over seeds "
    "and test images together, and in how many seeds."
)
SEEDS_ALONE = (
    "Where `ahead by` has ±, the interval is over seeds alone (Student's t): the predictions for the test "
    "images were not kept there."
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
    if rows.empty:
        paragraphs.append("Nothing has been run yet.")
    else:
        paragraphs += [_legend(study), _verdicts(folder, study, rows)]
    for budget, of_budget in rows.groupby("budget", sort=False):
        paragraphs.append(f"## Budget `{budget}`")
        for file, alternative in drawings.draw(folder, study, budget, of_budget):
            paragraphs.append(f"![{alternative}]({file})")
        for setting, group in of_budget.groupby("setting", sort=False):
            kept = Predictions(folder, budget, setting)
            paragraphs += [f"### {_describe(setting, group)}", f"```\n{table(study, group, kept)}\n```"]
            if pairs := beside.beside(study, group, kept):
                paragraphs.append(f"```\n{beside.table(pairs)}\n```")
            if (solved := solver_table(group)) is not None:
                paragraphs.append(f"```\n{solved}\n```")
        if _lacks_predictions(folder, budget, of_budget):
            paragraphs.append(SEEDS_ALONE)
        paragraphs.append(_provenance(folder, name, budget, of_budget))
    text = "\n\n".join(paragraphs) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    return text


def table(study: Study, rows: pd.DataFrame, kept: Predictions | None = None) -> str:
    """The models of one setting side by side, with intervals over test images too where `kept` has them."""
    lines = [("model", "n", "accuracy", "few", "corrected", "memorised", "ahead by")]
    known = _known(study, rows, study.measure)
    for model, of_model in rows.groupby("model", sort=False):
        pair = (model, study.target) if study.others_ahead else (study.target, model)
        by = "" if model == study.target else str(ahead(known, *pair, kept, study.measure))
        lines.append((model, str(len(of_model)), *(spread(of_model[key]) for key in _SHOWN), by))
    return align(lines, left=1)


def _known(study, rows, measure):
    """A measure by seed and model, with a column for the target even if it is not there."""
    return by_seed(rows, measure).reindex(columns={study.target: None, **dict.fromkeys(rows["model"])})


def solver_table(rows: pd.DataFrame) -> str | None:
    """What the solver did in the trainings of one setting; None if nothing is known of it."""
    lines = [("solver, mean over the training", "iterations", "batches converged", "error of the marginal")]
    solved = rows.dropna(subset="iterations").groupby("model", sort=False)[list(_SOLVER)].mean()
    for model, mean in solved.iterrows():
        lines.append((model, *(form.format(mean[key]) for key, form in _SOLVER.items())))
    return align(lines, left=1) if len(solved) else None


_SOLVER = {"iterations": "{:.0f}", "converged": "{:.0%}", "marginal_error": "{:.1e}"}
_SHOWN = ("last", "few", "noisy_corrected", "noisy_memorised")


def _legend(study):
    target = f"`{study.target}`"
    who = f"a model is ahead of {target}" if study.others_ahead else f"{target} is ahead"
    return LEGEND.format(measure={"last": "accuracy", "few": "`few`"}[study.measure], who=who)


def _lacks_predictions(folder, budget, rows):
    """Whether models that are shown have no predictions here."""
    kept = {setting: Predictions(folder, budget, setting) for setting in rows["setting"].unique()}
    places = zip(rows["setting"], rows["seed"], rows["model"], strict=True)
    return not all(kept[setting].has(seed, model) for setting, seed, model in places)


def _verdicts(folder, study, rows):
    """For each setting what the table comes to."""
    verdict = _beside if study.beside else _not_ahead if study.others_ahead else _best_rival
    groups = rows.groupby(["budget", "setting"], sort=False)
    return "\n".join(
        f"- {setting} ({budget}): {verdict(study, group, Predictions(folder, budget, setting))}"
        for (budget, setting), group in groups
    )


def _beside(study, rows, kept):
    """What the models come to beside those they are to improve on."""
    pairs = beside.beside(study, rows, kept)
    return beside.verdict(pairs) if pairs else "not complete"


def _not_ahead(study, rows, kept):
    """Which models are not ahead of the target on average."""
    known = _known(study, rows, study.measure)
    others = [name for name in known if name != study.target]
    found = {name: ahead(known, name, study.target, kept, study.measure) for name in others}
    behind = [f"`{name}` {by}" for name, by in found.items() if by.seeds and not by.mean > 0]
    return f"not ahead of `{study.target}`: {', '.join(behind) or 'none'}"


def _best_rival(study, rows, kept):
    """The target beside the best of all others that are no D-SINK, and which of these are still to be run."""
    known = _known(study, rows, "last").dropna(subset=study.target)
    present = rows.loc[rows["role"] != "target", "model"].unique()
    rivals = known[present].dropna(axis=1)
    declared = [model.name for model in with_needs(study.models) if not model.name.startswith(study.target)]
    missing = [f"`{name}`" for name in declared if name not in rivals]
    if rivals.empty:
        return "not complete"
    best = rivals.mean().idxmax()
    by, by_best = (ahead(known, study.target, name, kept) for name in (best, list(rivals)))
    left = f"; not run in every seed yet: {', '.join(missing)}" if missing else ""
    return (
        f"`{study.target}` {spread(known[study.target])}, the best that is no D-SINK, `{best}`, "
        f"{spread(rivals[best])}: ahead by {by}; of whichever is best in each seed by {by_best}{left}"
    )


def _describe(setting, rows):
    fewest, most = rows["train_images"].agg(["min", "max"])
    count = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{setting}: {count} images, {100 * rows['wrong_labels'].mean():.0f} % wrong labels"


def _provenance(folder, name, budget, rows):
    """The command, the time it took, the device, the versions and the date."""
    seeds = " ".join(map(str, sorted(set(rows["seed"]))))
    hours = rows["seconds"].sum() / 3600
    return (
        f"`python -m experiments.study {name} --budget {budget} --seeds {seeds}`; {hours:.1f} hours of "
        f"training in all. {environments_in_words(folder, rows[COLUMN])}."
    )
