"""One run: data, corruption, the models of a recipe, what is measured of them, the report."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dsink_jax import evaluation, report
from dsink_jax.data import batches, corruption
from dsink_jax.errors import InputError
from dsink_jax.methods import DSink, bytes_per_example
from dsink_jax.methods.hooks import UsesMetaSet
from dsink_jax.recipe import TARGET, Recipe, Watching
from dsink_jax.training import TrainedModel, make_progress
from dsink_jax.training.loop import ShouldStop, never
from dsink_jax.training.parallel import total_devices
from dsink_jax.training.processes import is_first
from experiments.config import Config
from experiments.dataset import Dataset, data_facts, load_dataset
from experiments.examples import TrainingLogits, collect_examples
from experiments.hyperparameters import hyperparameters, is_same
from experiments.models import STUDY_TARGET, Spec, run_specs
from experiments.run_directory import RunDirectory, known


def run(
    config: Config,
    make_specs: Callable[[Dataset], list[Spec]] | None = None,
    should_stop: ShouldStop = never,
) -> dict[str, Any]:
    """Trains what is not trained yet, writes the run directory and returns the results.

    Args:
      config: the settings.
      make_specs: the models to train, auxiliaries first; `run_specs` if left out.
      should_stop: see `training.train`; asked before each model too.

    Raises:
      InputError: for settings that do not fit the data or the machine, or a directory that cannot be used.
      TrainingStoppedError: if `should_stop` said so; what was done is saved.
      StorageError: if a file cannot be written.
    """
    devices = config.local_devices()
    batches.check_batch_size(config.batch_size, total_devices(devices))
    with RunDirectory(config) as directory:
        return _run(config, directory, devices, make_specs or (lambda _: run_specs(config)), should_stop)


def _run(config, directory, devices, make_specs, should_stop):
    dataset = load_dataset(config, directory, devices)
    print(f"Run directory {directory.path}")
    print(f"{dataset.data.name} from {dataset.data.source}")
    print(corruption.describe(dataset.drawn))
    if len(dataset.validation):
        print(
            f"{len(dataset.validation):,} of these images are held out to validate on, as they are labelled"
        )

    results = directory.results()
    directory.predictions()  # damaged ones are named before anything is trained
    results["data"] = data_facts(dataset)
    specs = make_specs(dataset)
    _check_same(specs, results)
    batches.check_length(config.epochs, len(dataset.corruption.index), config.batch_size)
    models = RunModels(dataset, directory, specs, should_stop)
    directory.start(dataset.drawn, dataset.checksums)
    todo = [spec for spec in specs if spec.name not in results["models"]]
    if not todo:
        print("All models are trained already.")
    for spec in todo:
        results["models"][spec.name] = models.train(spec)
        directory.save_results(results)
    planned = {spec.name: results["models"][spec.name] for spec in specs}
    results["models"] = planned | results["models"]  # in the order of the specs; others are kept
    directory.save_results(results)
    results["models"] = planned
    if is_first():
        finish(directory, results)
    return results


class RunModels:
    """The models of one run: trained by a recipe, and measured on test and training images."""

    def __init__(
        self,
        dataset: Dataset,
        directory: RunDirectory,
        specs: Sequence[Spec],
        should_stop: ShouldStop = never,
    ):
        """Checks the models before anything is trained.

        Raises:
          InputError: if one of them cannot be trained on the data.
        """
        self._dataset, self._directory = dataset, directory
        self.recipe = Recipe(
            dataset.training_set,
            specs,
            dataset.model_for,
            dataset.training_settings,
            seed=dataset.config.seed,
            devices=dataset.devices,
            directory=directory.path / "checkpoints",
            keep_checkpoints=dataset.config.keep_checkpoints,
            keep_best=bool(len(dataset.validation)),
            folds=dataset.config.folds,
            watching=Watching(
                evaluate=self._evaluate_epoch,
                on_record=directory.log,
                on_start=directory.forget_after,
                should_stop=should_stop,
                progress=lambda name: make_progress(name) if is_first() else None,
            ),
        )

    def train(self, spec: Spec) -> dict[str, Any]:
        """Trains one model, or finishes its training, and returns its entry of results.json."""
        history, seconds = [], 0.0
        if spec.is_trained:
            self._announce(spec)
            trained = self.recipe.train(spec.name)
            history, seconds = list(trained.history), trained.seconds
        test = self.recipe.logits(spec.name, self._dataset.data.test.images)
        train = self.recipe.training_logits(spec.name)
        entry = self._measure(spec, test, train, history or [self._evaluate(test)], seconds)
        if spec.name in (TARGET, STUDY_TARGET) and isinstance(spec.term, DSink):
            self._keep_examples(spec, train)
            entry["confusion_matrix"] = self._confusion_matrix(test)
        # Before the model counts as trained, so that what is in results.json has its predictions.
        dataset = self._dataset
        predicted = test.argmax(-1)
        self._directory.save_predictions(spec.name, predicted, dataset.data.test.labels, dataset.test_index)
        return entry

    def _keep_examples(self, spec, logits):
        """Writes what the page shows of single images, before the target counts as trained."""
        auxiliaries = [self.recipe.training_logits(name) for name in spec.auxiliaries]
        logits = TrainingLogits(logits, *auxiliaries)
        self._directory.save_examples(collect_examples(self._dataset, spec.term, logits))

    def _confusion_matrix(self, logits):
        data = self._dataset.data
        return evaluation.confusion_matrix(logits.argmax(-1), data.test.labels, data.num_classes).tolist()

    def _announce(self, spec):
        """Prints what the method keeps for the examples and takes out of them, if anything."""
        item = np.dtype(self._dataset.config.state_dtype).itemsize
        each = bytes_per_example(spec.method, self._dataset.data.num_classes, item)
        if each:
            examples = len(self._dataset.corruption.index)
            print(
                f"  {spec.name}: {each} bytes of state an example, {each * examples / 1e6:.3g} MB in all, "
                f"on every device ({self._dataset.config.state_dtype})"
            )
        if isinstance(spec.method, UsesMetaSet):
            print(f"  {spec.name}: {_meta_set(spec.method, self._dataset)}")

    def _evaluate_epoch(self, spec: Spec, trained: TrainedModel) -> dict[str, Any]:
        """What the record of an epoch has beside its training metrics."""
        dataset = self._dataset

        def predicted(images):
            return trained.logits(images, dataset.training_set.standardization, dataset.devices)

        record = self._evaluate(predicted(dataset.data.test.images))
        if len(dataset.validation):
            right = predicted(dataset.validation_images).argmax(-1)
            observed = dataset.drawn.noisy_labels[dataset.validation]
            record["validation_accuracy"] = float(np.mean(right == observed))
        if dataset.config.evaluate_training:
            record |= self._wrong_labels(predicted(dataset.images).argmax(-1))
        return record

    def _wrong_labels(self, predictions):
        """Shares of the wrong labels that are corrected and memorised."""
        drawn = self._dataset.corruption
        labels = predictions, drawn.noisy_labels, drawn.clean_labels
        return {
            "noisy_corrected": known(evaluation.noisy_corrected(*labels)),
            "noisy_memorised": known(evaluation.noisy_memorised(*labels)),
        }

    def _evaluate(self, logits):
        dataset = self._dataset
        predictions = logits.argmax(-1)
        labels, num_classes = dataset.data.test.labels, dataset.data.num_classes
        per_class = evaluation.per_class_accuracy(predictions, labels, num_classes)
        groups = evaluation.class_groups(dataset.corruption.clean_counts)
        return {
            "accuracy": float(np.mean(predictions == labels)),
            **{
                name: known(evaluation.group_accuracy(per_class, getattr(groups, name)))
                for name in groups._fields
            },
        }

    def _measure(self, spec, test, train, history, seconds):
        """The entry of results.json, from logits on test and training images and the evaluations."""
        dataset = self._dataset
        curve = [record["accuracy"] for record in history]
        labels, num_classes = dataset.data.test.labels, dataset.data.num_classes
        tested = test.argmax(-1), labels, num_classes
        per_class = evaluation.per_class_accuracy(*tested)
        last = self._evaluate(test)
        probabilities = np.asarray(jax.nn.softmax(test, axis=-1))
        print(f"  {spec.name} ({spec.label}): accuracy {100 * curve[-1]:.1f} %, {seconds:.0f} s")
        return {
            "role": spec.role,
            "method": spec.label,
            "definition": hyperparameters(spec),
            "accuracy": {
                "last": curve[-1],
                "mean_last_10": float(np.mean(curve[-10:])),
                "best": max(curve),
                **_at_best_validation(history),
            },
            "balanced_accuracy": known(evaluation.balanced_accuracy(*tested)),
            "macro_f1": known(evaluation.macro_f1(*tested)),
            "per_class": [known(share) for share in per_class.tolist()],
            **{name: last[name] for name in ("many", "medium", "few")},
            **self._wrong_labels(train.argmax(-1)),
            "calibration_error": evaluation.expected_calibration_error(probabilities, labels),
            "seconds": seconds,
            **({"meta_set": _meta_set(spec.method, dataset)} if isinstance(spec.method, UsesMetaSet) else {}),
        }


def finish(directory: RunDirectory, results: dict[str, Any]) -> None:
    """Prints the table, writes TensorBoard's files and the page, each where what it needs is installed."""
    print()
    print(report.results_table(results))
    if report.write_events(directory.path) is None:
        print('No TensorBoard files: they need tensorboardX: pip install "dsink-jax[report]"')
    try:
        page = report.write_report(directory.path)
    except report.MissingMatplotlibError as error:
        print(error)
    else:
        print(f"\nReport: {page}")


def _check_same(specs, results):
    """Raises `InputError` before anything is written or trained if a model was trained as another."""
    for spec in specs:
        entry = results["models"].get(spec.name)
        if entry is not None and not is_same(entry.get("definition"), spec):
            raise InputError(
                f"{spec.name} was trained as {entry.get('definition')} and is now {hyperparameters(spec)}.\n"
                "Give another --run-dir."
            )


def _at_best_validation(history):
    """Test accuracy where the accuracy on held-out images was highest, if there are any."""
    if "validation_accuracy" not in history[-1]:
        return {}
    return {"at_best_validation": max(history, key=lambda record: record["validation_accuracy"])["accuracy"]}


def _meta_set(method, dataset):
    """The meta set in words."""
    chosen = dataset.training_set.meta_set(method)
    wrong = np.mean(dataset.corruption.clean_labels[chosen["meta_index"]] != chosen["meta_labels"])
    return (
        f"meta set of {len(chosen['meta_index'])} training images, {method.meta_per_class} a class by "
        f"{method.meta_labels} labels, of which {100 * wrong:.0f} % are wrong"
    )
