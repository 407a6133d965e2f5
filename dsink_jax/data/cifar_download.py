"""Getting CIFAR from its home page, with a clear answer when that cannot work.

With TensorFlow installed, TensorFlow Datasets prepares its usual folder, so that other programs can
use it too. Without it, or if that fails, the binary archive is fetched and read as it is.
"""

import importlib.util
import logging
import os
import pathlib
import subprocess
import sys
import threading

from dsink_jax.data import cifar_files, cifar_tfds
from dsink_jax.data.cifar_files import CifarArrays, first_line
from dsink_jax.errors import InputError
from dsink_jax.extras import needs

BASE_URL = "https://www.cs.toronto.edu/~kriz"
"""Where the archives are; also the only place that TensorFlow Datasets takes them from."""

ARCHIVES = {
    "cifar10": (
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": (
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
}
"""File name and SHA-256 of each archive.

Source: `url_checksums/cifar10.txt` and `cifar100.txt` of tensorflow_datasets 4.9.10.
"""

_REACH_SECONDS = 10.0
_READ_SECONDS = 30.0

# Runs in a process of its own: TensorFlow would otherwise share this one with JAX.
_PREPARE = """
import sys
import tensorflow as tf
import tensorflow_datasets as tfds
tf.config.set_visible_devices([], "GPU")
builder = tfds.builder(sys.argv[1], data_dir=sys.argv[2])
builder.download_and_prepare(file_format="array_record")
"""


def download_cifar(dataset: str, data_dir: pathlib.Path, *, base_url: str | None = None) -> CifarArrays:
    """Downloads CIFAR into `data_dir` and reads it.

    Args:
        dataset: "cifar10" or "cifar100".
        data_dir: TFDS's data directory; made if it does not exist.
        base_url: Where to get the archive, `BASE_URL` if None. TensorFlow Datasets knows no other
            address than that one and is left out if another is given.

    Returns:
        The data set in the original order.

    Raises:
        InputError: The server cannot be reached (said within about ten seconds), the download
            fails, its checksum is wrong, `data_dir` cannot be written, or the extra `data` is missing.
    """
    with needs("data", f"{dataset} was not found in {data_dir}: downloading it"):
        import pooch  # noqa: F401
        import requests  # noqa: F401

    archive, sha256 = ARCHIVES[dataset]
    url = f"{(base_url or BASE_URL).rstrip('/')}/{archive}"
    problem = _reach_problem(url, _REACH_SECONDS)
    if problem:
        raise not_found(dataset, data_dir, f"{url} cannot be reached ({problem})")
    if base_url is None and importlib.util.find_spec("tensorflow"):
        prepared = _prepare_with_tfds(dataset, data_dir)
        if prepared:
            return cifar_tfds.read_prepared(dataset, prepared)
    _fetch(url, sha256, data_dir / archive)
    layout = next(each for each in cifar_files.LAYOUTS[dataset] if each.archive == archive)
    return cifar_files.read_files(dataset, layout, data_dir / archive)


def not_found(dataset: str, data_dir: pathlib.Path, reason: str) -> InputError:
    """Makes the error for a data set that is not there and cannot be downloaded.

    Args:
        dataset: "cifar10" or "cifar100".
        data_dir: Where it was looked for.
        reason: Why it was not downloaded.

    Returns:
        The error, to be raised: two lines, the second with what can be done.
    """
    place = f"{data_dir}" if data_dir.is_dir() else f"{data_dir}, which does not exist"
    return InputError(
        f"{dataset} was not found in {place}; {reason}.\n"
        f"Put {ARCHIVES[dataset][0]} (from {BASE_URL}) or TensorFlow Datasets' prepared folder "
        f"{dataset}/ there, or name the place that has it: data_dir= or TFDS_DATA_DIR."
    )


def _reach_problem(url: str, seconds: float) -> str | None:
    """Returns None if the server offers the file, else why not.

    The request runs in a thread of its own, because looking up a name has no time limit. Proxies
    set in the environment are used.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            with needs("data", "Downloading"):
                import requests

            with requests.get(url, stream=True, timeout=seconds / 2) as response:
                answers.append(None if response.ok else f"status {response.status_code}")
        except Exception as error:  # Whatever it is, there is no file to be had.
            answers.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"no answer within {seconds:g} seconds"


def _prepare_with_tfds(dataset: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Lets TensorFlow Datasets download and prepare; returns the folder, None if that failed."""
    command = [sys.executable, "-c", _PREPARE, dataset, str(data_dir)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    if subprocess.run(command, env=environment, check=False).returncode:
        logging.getLogger(__name__).warning(
            "TensorFlow Datasets could not prepare %s; taking the archive itself.", dataset
        )
    return cifar_tfds.find_prepared(dataset, data_dir)


def _fetch(url: str, sha256: str, path: pathlib.Path) -> None:
    """Downloads one file and checks it; a file that is not as published does not stay."""
    with needs("data", "Downloading"):
        import pooch

    downloader = pooch.HTTPDownloader(
        timeout=_READ_SECONDS, chunk_size=2**20, progressbar=sys.stderr.isatty()
    )
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            fname=path.name,
            path=path.parent,
            downloader=downloader,
        )
    except OSError as error:  # Includes every exception of requests.
        raise InputError(
            f"Downloading {url} to {path.parent} failed: {first_line(error)}.\n"
            f"Try again, or put {path.name} there by hand."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{url} does not have the published SHA-256 {sha256[:16]}...; it was removed.\n"
            f"Try again, or put an intact {path.name} into {path.parent} by hand."
        ) from error
