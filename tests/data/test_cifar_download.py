import contextlib
import hashlib
import http.server
import pathlib
import socket
import threading
import time

import pytest

from dsink_jax.data import cifar_download, sources

pytestmark = pytest.mark.usefixtures("small_rows", "no_proxy")


@pytest.fixture
def no_proxy(monkeypatch):
    """Keeps requests to this machine from going through a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


class Server:
    """A web server on this machine that serves one folder, and can misbehave."""

    def __init__(self, folder):
        self.requests = []
        self.declare = 1.0  # Declared length of a body by its real one.
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.command)
                path = folder / self.path.lstrip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                body = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(int(len(body) * server.declare)))
                self.end_headers()
                if self.command == "GET":
                    with contextlib.suppress(ConnectionError):
                        self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

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
def served(tmp_path, monkeypatch):
    server = Server(tmp_path / "served")
    monkeypatch.setattr(cifar_download, "BASE_URL", server.url)
    yield server
    server.close()


@pytest.fixture
def publish(served, tmp_path, monkeypatch, write_archive):
    """Serves the archive of a synthetic data set as if it were the published one."""

    def publish(cifar):
        path = write_archive(cifar, "binary", tmp_path / "served")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(cifar_download.SHA256, path.name, sha256)
        return path

    return publish


def test_load_downloads_once(cifar, publish, served, tmp_path, assert_same):
    archive, data_dir = publish(cifar).name, tmp_path / "new" / "data"
    assert_same(sources.load(cifar.dataset, data_dir), cifar)
    assert served.requests == ["HEAD", "GET"]
    assert [path.name for path in data_dir.iterdir()] == [archive]
    assert_same(sources.load(cifar.dataset, data_dir), cifar)
    assert len(served.requests) == 2


def test_no_download_unless_wished(cifar10, publish, served, tmp_path, refusal):
    publish(cifar10)
    message = refusal(sources.load, "cifar10", tmp_path / "data", download=False)
    assert "downloading is off" in message
    assert served.requests == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("longer", "SHA256"),
        ("shorter", "SHA256"),
        ("lost half way", "failed: "),
        ("a file in the way", "failed: "),
    ],
)
def test_what_is_not_as_published_does_not_stay(
    damage, said, cifar10, publish, served, tmp_path, refusal, monkeypatch
):
    path, data_dir = publish(cifar10), tmp_path / "folder" / "data"
    if damage == "a file in the way":
        data_dir.parent.touch()
    elif damage == "lost half way":
        served.declare = 2.0
    else:
        path.write_bytes(path.read_bytes() + b"x" if damage == "longer" else path.read_bytes()[:-100])
    message = refusal(cifar_download.download_cifar, "cifar10", data_dir)
    assert said in message and str(data_dir) in message
    assert not data_dir.is_dir() or list(data_dir.iterdir()) == []


@pytest.mark.parametrize("server", ["without the file", "gone", "unknown", "silent"])
def test_server_that_cannot_be_reached(server, served, tmp_path, monkeypatch, refusal):
    monkeypatch.setattr(cifar_download, "_REACH_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if server != "gone":
            silent.listen()
        if server in ("gone", "silent"):
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            monkeypatch.setattr(cifar_download, "BASE_URL", url)
        if server == "unknown":
            monkeypatch.setattr(cifar_download, "BASE_URL", "http://no-such-host.invalid")
        start = time.monotonic()
        message = refusal(sources.load, "cifar10", tmp_path / "data")
        assert time.monotonic() - start < 15
    for words in (str(tmp_path / "data"), "cannot be reached", "cifar-10-binary.tar.gz", "TFDS_DATA_DIR"):
        assert words in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_published_facts_agree_with_tfds(dataset):
    """TensorFlow Datasets ships the sizes and checksums of what it downloads."""
    import tensorflow_datasets as tfds

    listing = pathlib.Path(tfds.__file__).parent / "url_checksums" / f"{dataset}.txt"
    url, _, sha256, archive = listing.read_text().split()
    assert cifar_download.SHA256[archive] == sha256
    assert f"{cifar_download.BASE_URL}/{archive}" == url
