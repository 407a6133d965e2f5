"""What people hold in other libraries: each as the array that it stands for, or a line that says why not."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from PIL import Image

from dsink_jax import DSinkClassifier, InputError, audit, fit
from dsink_jax.estimator.arrays import as_array, as_columns, as_labels
from dsink_jax.estimator.inputs import InputKind, check_inputs

VALUES = np.array([[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]])
FRAME = pd.DataFrame(VALUES, columns=["a", "b"])
WORDS = pd.Categorical(["red", "blue", "red"], categories=["red", "green", "blue"])


class Tensor:
    """As a tensor of another library: it makes an array of itself, or says why not."""

    requires_grad = False

    def __init__(self, values, error=None):
        self._values, self._error = values, error

    def __array__(self, dtype=None, copy=None):
        if self._error:
            raise self._error
        return np.asarray(self._values, dtype)


class NeedsGrad(Tensor):
    requires_grad = True


class OnlyDlpack:
    """Has neither `__array__` nor columns."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        raise TypeError("unsupported type")

    def __dlpack__(self, **how):
        return self._values.__dlpack__(**how)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


class Column:
    """A column that is read value by value, as of a data set on disk."""

    def __init__(self, values):
        self._values = values

    def __len__(self):
        return len(self._values)

    def __getitem__(self, position):
        return self._values[position]


class DataSet:
    column_names = ("image", "label")
    features = {"image": None, "label": None}  # noqa: RUF012


class Lazy:
    """A frame that is not computed yet."""

    columns = dtypes = ("a",)

    def collect(self):
        return FRAME

    def collect_schema(self):
        return {}


PICTURES = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in range(3)]
TAKEN = {
    "frame": (FRAME, VALUES, ("a", "b")),
    "nullable": (FRAME.astype("Float64"), VALUES, ("a", "b")),
    "of Arrow": (FRAME.astype("double[pyarrow]"), VALUES, ("a", "b")),
    "flags": (
        FRAME.assign(c=[True, False, True]),
        np.column_stack([VALUES, [1, 0, 1]]),
        ("a", "b", "c"),
    ),
    "categories": (
        FRAME[["a"]].assign(c=WORDS),
        np.column_stack([VALUES[:, :1], [1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ("a", "c=red", "c=green", "c=blue"),
    ),
    "numbers as objects": (FRAME.astype(object), VALUES, ("a", "b")),
    "vectors in a column": (pd.DataFrame({"e": list(VALUES)}), VALUES, ("e[0]", "e[1]")),
    "table of Arrow": (
        pa.table({"x": VALUES[:, 0], "c": pa.array(["u", "v", "u"]).dictionary_encode()}),
        np.column_stack([VALUES[:, 0], [1, 0, 1], [0, 1, 0]]),
        ("x", "c=u", "c=v"),
    ),
    "series of vectors": (pd.Series(list(VALUES)), VALUES, ()),
    "tensor": (Tensor(VALUES), VALUES, ()),
    "tensor by DLPack": (OnlyDlpack(VALUES.astype(np.float32)), VALUES, ()),
    "column of vectors": (Column(VALUES.tolist()), VALUES, ()),
    "column of images": (Column(PICTURES), np.stack([np.asarray(p) for p in PICTURES]), ()),
    "list of images": (PICTURES, np.stack([np.asarray(p) for p in PICTURES]), ()),
    "masked nowhere": (np.ma.masked_array(VALUES), VALUES, ()),
}


@pytest.mark.parametrize("case", TAKEN)
def test_is_the_array_that_it_stands_for(case):
    given, expected, columns = TAKEN[case]
    found, names = as_columns(given)
    np.testing.assert_array_equal(found, expected)
    assert names == columns


REFUSED = {
    "masked": (np.ma.masked_greater(VALUES, 3), "masked in places, first in example 2"),
    "sparse": (scipy.sparse.csr_array(VALUES), "sparse matrix: give inputs.toarray()"),
    "requires grad": (NeedsGrad(VALUES), "requires grad: give inputs.detach()"),
    "on another device": (
        Tensor(VALUES, TypeError("copy it to the host first")),
        "copy it to the host first",
    ),
    "a whole data set": (DataSet(), "a whole data set: give a column of it, image, label"),
    "not computed": (Lazy(), "give inputs.collect()"),
    "words": (FRAME.assign(c=["u", "v", "u"]), "hold 'u' in column 'c', which is no number"),
    "a missing category": (
        FRAME.assign(c=pd.Categorical(["u", None, "u"])),
        "column 'c', first in example 1",
    ),
    "NaN": (FRAME.assign(b=[0, 1, np.nan]), "column 'b', first in example 2"),
    "NA": (FRAME.assign(b=pd.array([1, None, 2], dtype="Int64")), "column 'b', first in example 1"),
    "dates": (FRAME.assign(b=pd.Timestamp("2020-01-01")), "in column 'b', which are no numbers"),
    "column twice": (pd.concat([FRAME, FRAME], axis=1), "the column 'a' twice"),
    "images of two sizes": ([PICTURES[0], PICTURES[1].resize((5, 5))], "not one array"),
    "a dictionary": ({"a": 1}, "must be an array, got dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_array_can_be_made_of_is_named(case):
    given, said = REFUSED[case]
    with pytest.raises(InputError) as caught:
        as_array(given)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([0, 1, 1]),
        pd.Series([0, 1, 1], dtype="Int64"),
        pd.DataFrame({"y": [0, 1, 1]}),
        pa.chunked_array([[0, 1], [1]]),
        Column([0, 1, 1]),
        Tensor([0, 1, 1]),
        np.array([0, 1, 1], object),
    ],
)
def test_labels_of_other_libraries(labels):
    found = as_labels(labels)
    assert found.tolist() == [0, 1, 1] and found.dtype.kind == "i"


@pytest.mark.parametrize(
    "labels",
    [
        [0, None, 1],
        [0.0, np.nan, 1.0],
        pd.Series([0, None, 1], dtype="Int64"),
        pa.array([0, None, 1]),
        np.ma.masked_equal([0, 7, 1], 7),
    ],
)
def test_a_missing_label_is_named(labels):
    with pytest.raises(InputError, match=r"[Ee]xample 1"):
        as_labels(labels)


def test_a_memory_mapped_file_stays_on_disk(tmp_path):
    np.save(tmp_path / "a.npy", VALUES.astype(np.float32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert as_array(mapped) is mapped and check_inputs(mapped) is mapped


def test_columns_of_a_prediction_are_those_of_the_training():
    frame = FRAME.assign(c=WORDS)
    array, columns = as_columns(frame)
    kind = InputKind(array.shape[1:], "float32", columns)
    assert check_inputs(frame, kind).shape == (3, 5)
    with pytest.raises(InputError, match="in another order"):
        check_inputs(frame[["b", "a", "c"]], kind)
    with pytest.raises(InputError, match=r"'c=black' new; 'c=blue' gone"):
        check_inputs(frame.assign(c=WORDS.rename_categories({"blue": "black"})), kind)


def test_frames_with_categories_are_fitted_and_predicted(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    frame["colour"] = pd.Categorical(np.array(["red", "blue"])[labels])
    how = {"epochs": 10, "batch_size": 16, "selection": False}
    fitted = fit(frame, pd.Series(labels), target=False, **how)
    fitted.save(tmp_path / "model")
    again = type(fitted).load(tmp_path / "model")
    assert again.kind == fitted.kind and again.kind.columns == ("a", "b", "colour=blue", "colour=red")
    assert (again.predict(frame, "noise_robust") == labels).mean() > 0.95
    # A part that lacks a category is read by the type of the column.
    assert (again.predict(frame[labels == 0], "noise_robust") == 0).mean() > 0.95
    classifier = DSinkClassifier(role="noise_robust", **how).fit(frame, np.array(["n", "y"])[labels])
    assert classifier.feature_names_in_.tolist() == ["a", "b", "colour"]
    assert (classifier.predict(frame[labels == 1]) == "y").mean() > 0.95
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame.rename(columns={"b": "z"}))
    with pytest.raises(ValueError, match="'colour=black' new"):
        classifier.predict(frame.assign(colour=pd.Categorical(["black"] * 60)))
    found = audit.audit_labels(frame, pd.Series(labels), folds=2, **how)
    assert found.is_wrong.sum() <= 3
