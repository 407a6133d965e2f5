"""Getting CIFAR from its home page, with a clear answer when that cannot work."""

import pathlib
import sys

from dsink_jax.data.cifar_files import LAYOUTS, read_files
from dsink_jax.data.image_data import ImageData
from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError
from dsink_jax.extras import needs

BASE_URL = "https://www.cs.toronto.edu/~kriz"  # where the archives are

# Source: url_checksums/cifar10.txt and cifar100.txt of tensorflow_datasets 4.9.10.
SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
}

# Without an answer for so long, the server is given up.
_REACH_SECONDS, _READ_SECONDS = 10.0, 30.0


def download_cifar(dataset: str, data_dir: pathlib.Path) -> ImageData:
    """Downloads CIFAR's binary archive into `data_dir`, which is made if need be, and reads it.

    Raises:
      InputError: if the server cannot be reached, the download fails, its checksum is wrong, `data_dir`
        cannot be written, or the extra `data` is missing.
    """
    with needs("data", f"{dataset} was not found in {data_dir}: downloading it"):
        import pooch
        import requests

    layout = LAYOUTS[dataset][1]
    archive, url = layout.archive, f"{BASE_URL}/{layout.archive}"
    try:
        reached = pooch.HTTPDownloader(timeout=_REACH_SECONDS)(url, None, None, check_only=True)
        problem = "" if reached else "it is not there"
    except requests.RequestException as error:
        problem = type(error).__name__
    if problem:  # before a folder is made
        raise not_found(dataset, data_dir, f"{url} cannot be reached ({problem})")
    download = pooch.HTTPDownloader(timeout=_READ_SECONDS, chunk_size=2**20, progressbar=sys.stderr.isatty())
    try:
        pooch.retrieve(url, f"sha256:{SHA256[archive]}", fname=archive, path=data_dir, downloader=download)
    except (OSError, ValueError) as error:  # of requests, of the disk; another SHA-256
        raise InputError(
            f"Downloading {url} to {data_dir} failed: {first_line(error)}.\n"
            f"Try again, or put an intact {archive} there by hand."
        ) from error
    return read_files(dataset, layout, data_dir / archive)


def not_found(dataset: str, data_dir: pathlib.Path, reason: str) -> InputError:
    """The error for a data set that is not there and cannot be downloaded, with what can be done."""
    place = f"{data_dir}" if data_dir.is_dir() else f"{data_dir}, which does not exist"
    return InputError(
        f"{dataset} was not found in {place}; {reason}.\n"
        f"Put {LAYOUTS[dataset][1].archive} (from {BASE_URL}) or TensorFlow Datasets' prepared folder "
        f"{dataset}/ there, or name the place that has it: data_dir= or TFDS_DATA_DIR."
    )
