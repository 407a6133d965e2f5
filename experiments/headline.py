"""The table of results in the README, from the rows of the studies: D-SINK and the best of all rivals.

python -m experiments.headline            # write it
python -m experiments.headline --check    # exit code 1 if that would change something
"""

import argparse
import pathlib
import re
from collections.abc import Iterator

import pandas as pd

from dsink_jax.errors import InputError
from dsink_jax.flags import end
from experiments.kept_rows import read_rows
from experiments.natural import predictions, table
from experiments.natural.models import DSINK
from experiments.study import records
from experiments.study.paired import ahead, by_seed

ROOT = pathlib.Path(__file__).parents[1]
PLACE = re.compile(r"(<!-- results -->\n)(.*?)(<!-- end -->)", re.S)

CIFAR = {
    "cifar10-ratio-10-symmetric-0.4": "CIFAR-10, ratio 10, symmetric noise 0.4",
    "cifar10-ratio-100-symmetric-0.4": "CIFAR-10, ratio 100, symmetric noise 0.4",
    "cifar10-ratio-10-human-worse": "CIFAR-10, ratio 10, human labels (worse)",
    "cifar100-ratio-10-symmetric-0.4": "CIFAR-100, ratio 10, symmetric noise 0.4",
}
NATURAL = {"claude9": "Claude9, text", "chemprot": "ChemProt, text", "fer": "FER, images, one seed"}
MODELS = {
    "f_L-logit_adjustment": "f_L",
    "f_L-logit_adjustment-epochs=0.3": "f_L, stopped early",
    "f_N-elr": "f_N",
    "naive-noise_weight=0.7": "naive distillation",
    "noise_robust_adjusted": "f_N, adjusted",
    "cross_entropy": "cross-entropy",
}


def rows_of(results: pathlib.Path) -> Iterator[tuple[str, ...]]:
    """Lines of the table: data, measure, D-SINK, the best rival's name and its own, and the difference."""
    natural = read_rows(results / "natural" / "natural.csv")
    for name, title in NATURAL.items():
        here = natural[natural["setting"] == name]
        kept = [
            predictions.read(predictions.path_of(results / "natural", name, seed))
            for seed in sorted(set(here["seed"]))
        ]
        for measure in ("balanced_accuracy", "macro_f1"):
            rival = table.best_rival(here, measure)
            mean = here.groupby("model")[measure].mean()
            difference = str(table.difference(kept, measure, rival))
            yield (
                title,
                table.MEASURES[measure][0],
                _percent(mean[DSINK]),
                rival,
                _percent(mean[rival]),
                difference,
            )
    main = records.read(results / "main", "results.csv", "cpu")
    for name, title in CIFAR.items():
        known = by_seed(main[main["setting"] == name])
        mean = known.mean()
        rival = mean.drop("dsink").idxmax()
        difference = ahead(known, "dsink", rival)
        shown = f"{difference.mean:+.1f} ± {difference.half_width:.1f}"
        yield (
            title,
            "accuracy",
            _percent(mean["dsink"]),
            MODELS.get(rival, rival),
            _percent(mean[rival]),
            shown,
        )


def markdown(results: pathlib.Path) -> str:
    """The table as it stands in the README."""
    head = ("data", "measure", "D-SINK", "best of all others", "", "D-SINK is ahead by")
    lines = [head, ("---",) * len(head), *rows_of(results)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(share: float | pd.Series) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    """Writes the table, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if something would")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    try:
        new = PLACE.sub(lambda found: found[1] + markdown(ROOT / "results") + found[3], text)
    except InputError as error:
        end(2, f"error: {error}")
    if check and new != text:
        end(1, "The table in README.md is not that of results/: python -m experiments.headline writes it.")
    if not check:
        readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
