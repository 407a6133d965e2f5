"""Tries an installed dsink_jax without any extra, and writes table.csv. Run by .ci/install."""

import importlib.metadata
import importlib.util
import pathlib

import jax
import numpy as np

import dsink_jax
from dsink_jax.errors import InputError

assert "site-packages" in dsink_jax.__file__, dsink_jax.__file__
assert dsink_jax.__version__ == importlib.metadata.version("dsink-jax")

logits = jax.random.normal(jax.random.key(0), (3, 16, 4))
assert np.isfinite(dsink_jax.dsink_loss(*logits)).all()

labels = np.arange(60) % 3
features = np.random.default_rng(0).normal(size=(60, 4)) + 3 * np.eye(3, 4)[labels]
settings = dsink_jax.estimator.Settings(epochs=2, batch_size=20)
fitted = dsink_jax.fit(features, labels, num_classes=3, settings=settings, verbose=False)
assert fitted.logits(features).shape == (60, 3)

rows = [f"{','.join(map(str, row))},{label}" for row, label in zip(features, labels, strict=True)]
pathlib.Path("table.csv").write_text("\n".join(["a,b,c,d,label", *rows]))


def refused(call, extra):
    """Whether what needs an extra names it, on one line."""
    try:
        call()
    except InputError as error:
        assert f'pip install "dsink-jax[{extra}]"' in str(error) and "\n" not in str(error), error
    else:
        raise AssertionError(f"The extra {extra} was not asked for.")


from dsink_jax.data import streaming  # noqa: E402
from dsink_jax.report import canvas, tensorboard  # noqa: E402

for name in ("matplotlib", "tensorboardX", "grain"):
    assert importlib.util.find_spec(name) is None, f"{name} comes with the runtime dependencies"
refused(lambda: canvas.make_axes(4, 3), "report")
refused(lambda: next(streaming.read_batches(np.zeros((4, 8, 8, 1)), [np.arange(2)])), "large")
assert tensorboard.write_events(pathlib.Path()) is None
print("dsink_loss, fit and what is said without extras: as they should be")
