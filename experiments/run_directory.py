"""The files of one run. Everything a run leaves behind is written here, by the first process."""

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsink_jax.atomic import replacing
from dsink_jax.data.corruption import Corruption, load_corruption, save_corruption
from dsink_jax.data.npz_files import read_npz
from dsink_jax.errors import InputError, StorageError
from dsink_jax.training.lock import DirectoryLock
from dsink_jax.training.processes import from_first, is_first
from experiments.config import PLACE, Config, default_settings
from experiments.provenance import device_description, versions


class RunDirectory:
    """The directory of one run.

    It holds config.json, corruption.npz, metrics.jsonl, examples.npz, predictions.npz, results.json and
    checkpoints/.

    A context: as long as it is open, no other run can use the directory.
    """

    def __init__(self, config: Config):
        """Makes the directory, or opens one that holds the same configuration.

        Raises:
          InputError: if it holds another configuration, is in use, or is not a directory that can be written.
        """
        self.path = config.directory
        self._config = config
        self._lock: DirectoryLock | None = None
        from_first(self._open)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Lets other runs use the directory. A new one that no run has started in is taken away again."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open(self):
        with _writing(self.path):
            self._lock = DirectoryLock(self.path, "Give another --run-dir.")
        try:
            self._check_same(self._config.settings())
            self._drop_damaged_lines()
        except BaseException:
            self.close()
            raise

    def _check_same(self, settings):
        stored = _read_json(self.path / "config.json")
        if stored is None:
            if (self.path / "results.json").exists():
                raise InputError(f"{self.path} has results but no config.json. Give another --run-dir.")
            return
        if not isinstance(stored.get("settings"), dict):
            raise _damaged(self.path / "config.json")
        there = default_settings() | stored["settings"]
        different = [
            f"{name} is {there.get(name)} there and {settings.get(name)} here"
            for name in sorted({*settings, *there} - set(PLACE))
            if there.get(name) != settings.get(name)
        ]
        if different:
            raise InputError(
                f"{self.path} holds a run with another configuration: {'; '.join(different[:3])}.\n"
                "Give another --run-dir, or remove that one."
            )

    def check_images(self, checksums: Mapping[str, str]) -> None:
        """Raises `InputError` if the run was started with other images, as far as it tells.

        Args:
          checksums: of parts of the images; parts that only one side knows are not compared.
        """

        def check():
            stored = _read_json(self.path / "config.json") or {}
            there = stored.get("images", {})
            if not isinstance(there, dict):
                raise _damaged(self.path / "config.json")
            different = [part for part, found in checksums.items() if there.get(part, found) != found]
            if different:
                raise InputError(
                    f"{self.path} holds a run on other images: its checksums of {' and '.join(different)} "
                    "differ.\nGive the data as it was, or another --run-dir."
                )

        from_first(check)

    def start(self, corruption: Corruption, checksums: Mapping[str, str]) -> None:
        """Writes config.json and corruption.npz when the settings have proved to fit, before any training.

        A run that is continued keeps what it was started with; other versions or another device are added
        under `continued`.

        Args:
          corruption: the corrupted set.
          checksums: of its images, see `check_images`.
        """
        if not is_first():
            return
        path = self.path / "config.json"
        now = {"versions": versions(), "device": device_description(self._config.local_devices())}
        stored = _read_json(path)
        if stored is None:
            with _writing(self.path):
                save_corruption(self.path / "corruption.npz", corruption)
            _write_json(path, {"settings": self._config.settings(), **now, "images": {**checksums}})
        elif now not in [{name: stored[name] for name in now}, *stored.get("continued", [])]:
            _write_json(path, {**stored, "continued": [*stored.get("continued", []), now]})

    def corruption(self) -> Corruption | None:
        """The corrupted set of this run if it was started already."""

        def load():
            if not (self.path / "config.json").exists():
                return None
            try:
                return load_corruption(self.path / "corruption.npz")
            except InputError as error:
                what = str(error).splitlines()[0]
                raise InputError(f"{what}\nGive another --run-dir, or remove this one.") from None

        return from_first(load)

    def results(self) -> dict[str, Any]:
        """What is known so far: `models` by name, and `data`."""
        return from_first(self._read_results) or {"models": {}, "data": {}}

    def _read_results(self):
        path = self.path / "results.json"
        stored = _read_json(path)
        models = {} if stored is None else stored.get("models")
        if not isinstance(models, dict) or not all(isinstance(entry, dict) for entry in models.values()):
            raise _damaged(path)
        return stored

    def save_results(self, results: dict[str, Any]) -> None:
        """Writes the results, whole or not at all."""
        if is_first():
            _write_json(self.path / "results.json", results)

    def save_examples(self, examples: dict[str, np.ndarray]) -> None:
        """Writes examples.npz, whole or not at all."""
        if not is_first():
            return
        path = self.path / "examples.npz"
        with _writing(path), replacing(path, "wb") as file:
            np.savez_compressed(file, **examples)

    def save_predictions(
        self, model: str, predicted: np.ndarray, gold: np.ndarray, index: np.ndarray
    ) -> None:
        """Adds a model to predictions.npz, whole or not at all.

        The file has a class for each test image by each model, under its name, the true ones as `gold`, and
        as `images` which images of the data set's test part these are.

        Args:
          model: its name.
          predicted: classes by it.
          gold: the true classes.
          index: which images of the test part.
        """
        if not is_first():
            return
        path = self.path / "predictions.npz"
        small = np.uint8 if max(gold.max(), predicted.max()) < 2**8 else np.uint16
        told = {"gold": gold.astype(small), "images": index.astype(np.uint32)}
        told = {**self.predictions(), **told, model: predicted.astype(small)}
        with _writing(path), replacing(path, "wb") as file:
            np.savez_compressed(file, **told)

    def predictions(self) -> dict[str, np.ndarray]:
        """What predictions.npz has, empty if it is not there; see `save_predictions`."""
        path = self.path / "predictions.npz"
        if not path.exists():
            return {}
        try:
            return read_npz(path)
        except InputError:
            raise _damaged(path) from None

    def log(self, model: str, record: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        if is_first():
            path = self.path / "metrics.jsonl"
            with _writing(path), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"model": model, **record}, allow_nan=False) + "\n")

    def forget_after(self, model: str, epoch: int) -> None:
        """Takes back the lines of a model's epochs after `epoch`, which will be trained again."""
        path = self.path / "metrics.jsonl"
        if not is_first() or not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        kept = [r["model"] != model or r["epoch"] <= epoch for r in records]
        _write_text(path, "".join(f"{line}\n" for line, keep in zip(lines, kept, strict=True) if keep))

    def _drop_damaged_lines(self):
        """Leaves the whole lines of metrics.jsonl and names the others: a kill can cut the last one short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        whole = [_is_record(line) for line in lines]
        if not all(whole):
            numbers = ", ".join(str(number) for number, good in enumerate(whole, start=1) if not good)
            print(f"{path}: line {numbers} is not whole and is left out.", file=sys.stderr, flush=True)
            _write_text(path, "".join(f"{line}\n" for line, good in zip(lines, whole, strict=True) if good))


def known(number: float) -> float | None:
    """JSON has no NaN: a share of nothing is null."""
    return None if number != number else number


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError, RecursionError):
        raise _damaged(path) from None
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _damaged(path):
    return InputError(f"{path} is damaged. Remove it, or give another --run-dir.")


def _write_json(path, value):
    _write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _write_text(path, text):
    with _writing(path), replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def _writing(path):
    """Turns what the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}.\n"
            "What was there is whole; the same command goes on when there is room."
        ) from error


def _is_record(line):
    try:
        return {"model", "epoch"} <= json.loads(line).keys()
    except (ValueError, AttributeError):
        return False
