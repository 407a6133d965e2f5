"""Eight virtual CPU devices for every test, before JAX starts, and what tests of training share."""

import fcntl
import os
import pathlib

# Commands that tests start compile the same programs again and again. A folder for each worker: JAX locks
# nothing when it writes. Before JAX is imported, which reads these.
_COMPILED = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(_COMPILED / os.environ.get("PYTEST_XDIST_WORKER", "alone"))
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from run_commands import QUICK, run  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# A quarter of the tests' time is the compiler's, making programs fast that run once. What runs in other
# processes (commands, notebooks, documentation) is compiled as people have it.
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("ci")

NUM_CLASSES = 4


@pytest.fixture(scope="module", autouse=True)
def _forget_what_was_compiled():
    """Programs of one file are of no use to the next, and thousands of them crash the compiler."""
    yield
    jax.clear_caches()


@pytest.fixture
def optimized():
    """Programs compiled as people have them, where it is the compiler's choices that are in question."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A run of the command line that nothing disturbed, for all workers one; what it printed lies beside it.

    Only to be read: another worker may be reading it too.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    directory = folder / "undisturbed" / "run"
    printed = directory.with_name("printed.txt")
    with (folder / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            done = run(*QUICK, "--run-dir", directory)
            assert done.returncode == 0, done.stderr
            printed.write_text(done.stdout)
    return directory


@pytest.fixture(scope="session")
def small_data():
    """60 uint8 images 8x8 in 4 classes: bright in one quarter each, with noise."""
    from dsink_jax.training import DeviceData

    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_CLASSES, 60).astype(np.int32)
    images = rng.integers(0, 60, (60, 8, 8, 1))
    for i, label in enumerate(labels):
        row, column = divmod(int(label), 2)
        images[i, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    return DeviceData(images.astype(np.uint8), labels)


@pytest.fixture(scope="session")
def cpus():
    devices = jax.devices("cpu")
    assert len(devices) == 8, "tests need 8 virtual CPU devices; see tests/conftest.py"
    return devices
