"""Which labels are probably wrong, as one command.

    python -m dsink_jax.audit data.npz      # arrays features [M, D] or images [M, H, W, channels], and labels
    python -m dsink_jax.audit data.csv      # a column `label`, features in the others; or .parquet ...
    python -m dsink_jax.audit folder/       # a folder of images for each class

writes a table of all labels, the most probably wrong first, and a page of them, and prints a summary. Ends
with code 0; with 1 if more labels are wrong than --fail-above; with 2 for data that cannot be used; with 3 if
the trainings diverge, nothing can be written or anything else goes wrong.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dsink_jax import audit
from dsink_jax.atomic import replacing
from dsink_jax.audit.tables import ID_COLUMN, LABEL_COLUMN
from dsink_jax.errors import InputError, StorageError
from dsink_jax.estimator import Settings
from dsink_jax.estimator.settings import AUTO
from dsink_jax.extras import needs
from dsink_jax.flags import check_local_flags, end, flag, in_flags, print_anywhere, read_flags, tell
from dsink_jax.methods import METHODS
from dsink_jax.report import percent
from dsink_jax.training import TrainingDivergedError

# Parameters that messages of the library speak of, and that there are flags for.
_NAMED = ("label_columns", "label_separator", "label_column", "id_column", "noise_method", "known_share")


@dataclasses.dataclass(frozen=True)
class Flags:
    """Finds labels that are probably wrong."""

    data: pathlib.Path
    """A .npz file, a table such as .csv or .parquet, or a folder with a folder of images for each class."""
    output: pathlib.Path | None = None
    """Folder for labels.csv and labels.html; default: the name of the data with -audit after it."""
    fail_above: float | None = None
    """Share of labels in [0, 1]; if more are probably wrong, the exit code is 1."""
    label_column: str = LABEL_COLUMN
    """Column of a table that holds the labels."""
    label_separator: str | None = None
    """What parts the labels of a line where it may have several, or none, such as ';'."""
    label_columns: tuple[str, ...] = ()
    """Columns of 0 and 1 of a table instead, one for each of several labels."""
    id_column: str = ID_COLUMN
    """Column of a table that says which example a line is, if there is one."""
    image_size: int = 32
    """Side to which images of a folder are scaled."""
    model: str = "auto"
    """Network of the auxiliary models; auto is linear for features and wide_cnn for images."""
    imbalance_method: str = "logit_adjustment"
    """How f_L is trained."""
    noise_method: str = AUTO
    """How f_N is trained; auto chooses for features, and is elr for images."""
    known_share: float | Literal["estimated"] = 1.0
    """Share of the examples that are of one of the classes, if others are among them; or estimated."""
    folds: int = 5
    """Parts that the data is split into; each is judged by models that were trained on the others."""
    epochs: int | None = None
    """Passes over the data of each training; default: 30, for features 1,000 steps if that is more."""
    batch_size: int = Settings.batch_size
    """Examples a step."""
    learning_rate: float = Settings.learning_rate
    """Highest learning rate."""
    shown: int = 200
    """Labels on the page."""
    seed: int = 0
    """Decides folds and trainings."""
    quiet: bool = False
    """Print the summary alone."""

    def __post_init__(self):
        check_local_flags(self)
        if self.fail_above is not None and not 0 <= self.fail_above <= 1:
            raise InputError(f"--fail-above must be in [0, 1], got {self.fail_above}.")
        if self.shown < 0:
            raise InputError(f"--shown must be at least 0, got {self.shown}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed must be in [0, 2^32), got {self.seed}.")
        for name, least in (("folds", 2), ("epochs", 1), ("batch_size", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"{flag(name)} must be at least {least}, got {value}.")
        _ = self.settings  # says what else is out of range, before anything is read
        for role in ("imbalance_method", "noise_method"):
            name = getattr(self, role)
            if name != AUTO and METHODS[name].method.required:
                raise InputError(
                    f"{flag(role)} {name}: this method needs options that have no flags here.\n"
                    "Choose another, or give the method itself with options to dsink_jax.audit.audit_labels."
                )

    @property
    def folder(self) -> pathlib.Path:
        """Where what was found is written."""
        data = pathlib.Path(os.path.abspath(self.data))  # beside a link, not beside what it leads to
        return self.output or data.with_name(f"{data.name}-audit")

    @property
    def settings(self) -> Settings:
        """How to train."""
        names = {field.name for field in dataclasses.fields(Settings)} & vars(self).keys()
        return Settings(**{name: getattr(self, name) for name in names})


def run(flags: Flags) -> int:
    """Reads, judges, writes; returns the exit code.

    Raises:
      InputError: for data that cannot be used.
      StorageError: if nothing can be written.
    """
    try:
        data = audit.read(
            flags.data,
            label_column=flags.label_column,
            id_column=flags.id_column,
            label_separator=flags.label_separator,
            label_columns=flags.label_columns,
            image_size=flags.image_size,
        )
    except InputError as error:
        raise InputError(in_flags(str(error), _NAMED)) from None
    several = data.labels.ndim == 2
    if several:
        _check_several(flags)
    elif len(given := np.unique(data.labels)) < 2:
        only = ", ".join(data.class_names[k] for k in given)
        raise InputError(f"{flags.data} has labels of one class only: {only}.")
    elif len(given) > max(len(data.labels) / 2, 2):
        raise InputError(
            f"{flags.data} has {len(given):,} different labels for {len(data.labels):,} examples.\n"
            "Labels name classes: is it another column, or array, that holds them?"
        )
    if not flags.quiet:
        shape = " x ".join(map(str, data.inputs.shape[1:]))
        print(
            f"{len(data.labels):,} examples of {shape} numbers, {len(data.class_names)} classes; "
            f"{flags.folds} folds"
        )
    with _folder(flags.folder):
        logits = audit.out_of_sample_logits(
            data.inputs,
            data.labels,
            num_classes=len(data.class_names),
            folds=flags.folds,
            settings=flags.settings,
            verbose=not flags.quiet,
        )
    title = f"Labels of {flags.data.resolve().name}"
    if several:
        missed = audit.find_multilabel_errors(data.labels, logits.noise_robust, logits.imbalance_robust)
        _write(flags.folder / "labels.csv", audit.table_of_several(data, missed))
        _write(flags.folder / "labels.html", audit.page_of_several(data, missed, title, flags.shown))
        print(audit.summary_of_several(data, missed))
        return _end(flags, float((missed.wrong_probability > 0.5).mean()), [])
    models = logits.noise_robust, logits.imbalance_robust, logits.others
    found = audit.find_label_errors(data.labels, *models, judged=logits.judged, known_share=flags.known_share)
    cautions = [
        in_flags(caution, _NAMED) for caution in audit.cautions(data, found, logits.noise_robust, flags.folds)
    ]
    _write(flags.folder / "labels.csv", audit.table(data, found))
    _write(flags.folder / "labels.html", audit.page(data, found, title, flags.shown, cautions))
    print(audit.summary(data, found))
    return _end(flags, float(found.is_wrong.mean()), cautions)


def _check_several(flags):
    """Refuses flags that have no meaning for several labels."""
    if flags.known_share != 1:
        raise InputError("--known-share is for one label an example.")


def _end(flags, share, cautions):
    """Tells where everything is, and gives the exit code."""
    print(f"\nAll labels: {flags.folder / 'labels.csv'}\nThe worst:  {flags.folder / 'labels.html'}")
    for line in cautions:
        tell(f"warning: {line}")
    if flags.fail_above is not None and share > flags.fail_above:
        limit = percent(flags.fail_above)
        print(f"{percent(share)} % of the labels are probably wrong, more than {limit} %.", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _folder(folder):
    """Makes the folder before the work begins, and takes it away again if the work fails."""
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}. Give another --output.") from error
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write(path, text):
    try:
        with replacing(path) as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error


def flags_of(arguments: Sequence[str] | None = None) -> Flags:
    """Reads the flags; those of this process if left out.

    Raises:
      InputError: for flags that do not fit, or if the extra is missing that reads them.
    """
    with needs("audit", "This command"):
        import tyro

    return read_flags(Flags, arguments, config=(tyro.conf.PositionalRequiredArgs,))  # the data


def main() -> None:
    """Runs the command with the flags of this process."""
    print_anywhere()
    try:
        code = run(flags_of())
    except InputError as error:
        end(2, f"error: {error}")
    except (StorageError, TrainingDivergedError) as error:
        end(3, f"error: {error}")
    except KeyboardInterrupt:
        end(130, "\nStopped.")
    except BrokenPipeError:  # nobody reads what is printed any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell says of whom SIGPIPE has ended
    except Exception:
        traceback.print_exc()
        end(3, "error: this is a fault of dsink-jax, not of the data.")
    sys.exit(code)


if __name__ == "__main__":
    main()
