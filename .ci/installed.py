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
classifier = dsink_jax.DSinkClassifier(epochs=2, batch_size=20).fit(features, labels)
assert classifier.predict(features).shape == (60,)
found = dsink_jax.audit.audit_labels(features, labels, folds=2, settings=settings)
assert found.probabilities.shape == (60, 3)

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


from dsink_jax.data import cifar_download, cifar_tfds, streaming  # noqa: E402
from dsink_jax.flags import read_flags  # noqa: E402
from dsink_jax.report import canvas, gallery, tensorboard  # noqa: E402

for name in (
    *("matplotlib", "tensorboardX", "grain", "tensorflow_datasets", "pandas"),
    *("pyarrow", "PIL", "pooch", "requests", "tyro", "chex"),
):
    assert importlib.util.find_spec(name) is None, f"{name} comes with the runtime dependencies"
refused(lambda: canvas.make_axes(4, 3), "report")
refused(lambda: next(streaming.read_batches(np.zeros((4, 8, 8, 1)), [np.arange(2)])), "large")
refused(lambda: read_flags(dsink_jax.estimator.Settings, []), "cli")
refused(lambda: gallery.png_data_uri(np.zeros((2, 2, 3), np.uint8)), "audit")
images = pathlib.Path("images/cat")
images.mkdir(parents=True)
(images / "1.png").touch()
refused(lambda: dsink_jax.audit.read(images.parent), "audit")
table = pathlib.Path("table.csv")
table.write_text("x,label\n1,a\n2,b\n")
refused(lambda: dsink_jax.audit.read(table), "audit")
prepared = pathlib.Path("data/cifar10/3.0.2")
prepared.mkdir(parents=True)
(prepared / "dataset_info.json").touch()
refused(lambda: cifar_tfds.read_prepared("cifar10", prepared), "data")
refused(lambda: cifar_download.download_cifar("cifar10", pathlib.Path("nowhere")), "data")
assert tensorboard.write_events(pathlib.Path()) is None
print("dsink_loss, fit, DSinkClassifier, audit_labels and what is said without extras: as they should be")
