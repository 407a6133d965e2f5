import contextlib
import hashlib
import http.server
import importlib.util
import pathlib
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from dsink_jax.data import cifar_download, sources

pytestmark = pytest.mark.usefixtures("small_rows", "no_proxy", "no_tensorflow")


@pytest.fixture
def no_proxy(monkeypatch):
    """Keeps requests to this machine from going through a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def no_tensorflow(monkeypatch):
    """Makes TensorFlow look as if it were not installed, even where it is."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


class Server:
    """A web server on this machine that serves one folder, and can misbehave."""

    def __init__(self, folder):
        self.requests = []
        self.declare = 1.0  # Declared length of a body by its real one.
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                path = folder / self.path.lstrip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                body = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(int(len(body) * server.declare)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # The first request hangs up early.
                    self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(tmp_path):
    server = Server(tmp_path / "served")
    yield server
    server.close()


@pytest.fixture
def publish(served, tmp_path, monkeypatch, write_archive):
    """Serves the archive of a synthetic data set as if it were the published one."""

    def publish(cifar):
        path = write_archive(cifar, "binary", tmp_path / "served")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        archives = cifar_download.ARCHIVES | {cifar.dataset: (path.name, sha256)}
        monkeypatch.setattr(cifar_download, "ARCHIVES", archives)
        return path

    return publish


def unused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_download(cifar, publish, served, tmp_path):
    archive = publish(cifar).name
    data_dir = tmp_path / "new" / "data"
    arrays = cifar_download.download_cifar(cifar.dataset, data_dir, base_url=served.url)
    np.testing.assert_array_equal(arrays.train_images, cifar.images["train"])
    np.testing.assert_array_equal(arrays.test_labels, cifar.labels["test"])
    assert [path.name for path in data_dir.iterdir()] == [archive]


def test_load_downloads_once(cifar10, publish, served, tmp_path, monkeypatch):
    publish(cifar10)
    monkeypatch.setattr(cifar_download, "BASE_URL", served.url + "/")
    first = sources.load("cifar10", tmp_path / "data")
    asked = len(served.requests)
    assert asked == 2  # Whether it is there, and the archive.
    second = sources.load("cifar10", tmp_path / "data")
    assert len(served.requests) == asked
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.train.images, cifar10.images["train"])


def test_no_download_unless_wished(cifar10, publish, served, tmp_path, monkeypatch, refusal):
    publish(cifar10)
    monkeypatch.setattr(cifar_download, "BASE_URL", served.url)
    message = refusal(sources.load, "cifar10", tmp_path / "data", download=False)
    assert "downloading is off" in message
    assert served.requests == []
    assert not (tmp_path / "data").exists()


def test_wrong_checksum(cifar10, publish, served, tmp_path, refusal):
    path = publish(cifar10)
    path.write_bytes(path.read_bytes() + b"x")
    data_dir = tmp_path / "data"
    message = refusal(cifar_download.download_cifar, "cifar10", data_dir, base_url=served.url)
    assert "SHA-256" in message
    assert list(data_dir.iterdir()) == []


def test_connection_lost_half_way(cifar10, publish, served, tmp_path, refusal):
    publish(cifar10)
    served.declare = 2.0
    data_dir = tmp_path / "data"
    message = refusal(cifar_download.download_cifar, "cifar10", data_dir, base_url=served.url)
    assert str(data_dir) in message
    assert list(data_dir.iterdir()) == []


def test_body_shorter_than_published(cifar10, publish, served, tmp_path, refusal):
    path = publish(cifar10)
    path.write_bytes(path.read_bytes()[:-100])
    data_dir = tmp_path / "data"
    refusal(cifar_download.download_cifar, "cifar10", data_dir, base_url=served.url)
    assert list(data_dir.iterdir()) == []


def test_data_dir_that_cannot_be_made(cifar10, publish, served, tmp_path, refusal):
    publish(cifar10)
    (tmp_path / "file").touch()
    message = refusal(
        cifar_download.download_cifar, "cifar10", tmp_path / "file" / "data", base_url=served.url
    )
    assert str(tmp_path / "file" / "data") in message


def assert_names_remedies(message, data_dir):
    for remedy in (str(data_dir), "cifar-10-binary.tar.gz", "data_dir=", "TFDS_DATA_DIR"):
        assert remedy in message


def test_server_without_the_file(served, tmp_path, refusal):
    message = refusal(cifar_download.download_cifar, "cifar10", tmp_path, base_url=served.url)
    assert "status 404" in message
    assert_names_remedies(message, tmp_path)


def test_no_server(tmp_path, monkeypatch, refusal):
    monkeypatch.setattr(cifar_download, "BASE_URL", unused_url())
    start = time.monotonic()
    message = refusal(sources.load, "cifar10", tmp_path / "data")
    assert time.monotonic() - start < 15
    assert "cannot be reached" in message
    assert_names_remedies(message, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "nonsense", "http://[", "http://"])
def test_address_that_leads_nowhere(url, tmp_path, refusal):
    start = time.monotonic()
    message = refusal(cifar_download.download_cifar, "cifar10", tmp_path, base_url=url)
    assert time.monotonic() - start < 15
    assert "cannot be reached" in message


def test_server_that_never_answers(tmp_path, monkeypatch, refusal):
    monkeypatch.setattr(cifar_download, "_REACH_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        message = refusal(cifar_download.download_cifar, "cifar10", tmp_path, base_url=url)
        assert time.monotonic() - start < 5
    assert "cannot be reached" in message


def test_name_service_that_never_answers(tmp_path, monkeypatch, refusal):
    """Looking up a name has no time limit of its own."""
    release = threading.Event()
    monkeypatch.setattr(cifar_download, "_REACH_SECONDS", 0.2)
    monkeypatch.setattr("requests.get", lambda *args, **kwargs: release.wait(30))
    message = refusal(cifar_download.download_cifar, "cifar10", tmp_path)
    release.set()
    assert "no answer within 0.2 seconds" in message


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_published_facts_agree_with_tfds(dataset):
    """TensorFlow Datasets ships the sizes and checksums of what it downloads."""
    import tensorflow_datasets as tfds

    listing = pathlib.Path(tfds.__file__).parent / "url_checksums" / f"{dataset}.txt"
    url, _, sha256, archive = listing.read_text().split()
    assert cifar_download.ARCHIVES[dataset] == (archive, sha256)
    assert f"{cifar_download.BASE_URL}/{archive}" == url


@pytest.fixture
def tensorflow_installed(no_tensorflow, monkeypatch):
    """Makes TensorFlow look installed, and records what would be run with it."""
    commands = []

    def install(prepare):
        def run(command, **kwargs):
            commands.append(command)
            return subprocess.CompletedProcess(command, prepare())

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return install


def test_tensorflow_prepares_the_folder(
    cifar10, publish, served, copy_prepared, tensorflow_installed, tmp_path, monkeypatch
):
    publish(cifar10)
    monkeypatch.setattr(cifar_download, "BASE_URL", served.url)
    data_dir = tmp_path / "data"

    def prepare():
        copy_prepared(cifar10, data_dir)
        return 0

    commands = tensorflow_installed(prepare)
    data = sources.load("cifar10", data_dir)
    np.testing.assert_array_equal(data.train.images, cifar10.images["train"])
    assert "TensorFlow Datasets" in data.source
    assert commands[0][-2:] == ["cifar10", str(data_dir)]


def test_archive_if_tensorflow_fails(
    cifar10, publish, served, tensorflow_installed, tmp_path, monkeypatch, caplog
):
    publish(cifar10)
    monkeypatch.setattr(cifar_download, "BASE_URL", served.url)
    tensorflow_installed(lambda: 1)
    data = sources.load("cifar10", tmp_path / "data")
    np.testing.assert_array_equal(data.train.images, cifar10.images["train"])
    assert "could not prepare" in caplog.text


def test_another_address_is_not_left_to_tensorflow(cifar10, publish, served, tensorflow_installed, tmp_path):
    publish(cifar10)
    commands = tensorflow_installed(lambda: 1)
    cifar_download.download_cifar("cifar10", tmp_path / "data", base_url=served.url)
    assert commands == []
