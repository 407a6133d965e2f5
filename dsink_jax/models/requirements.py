"""Whether a network can do what is asked of it, found out by shapes alone, before anything is trained."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax

from dsink_jax.errors import InputError, check_known
from dsink_jax.models.adapted import kernel_of
from dsink_jax.models.interface import Model, collections_of, same_structure
from dsink_jax.models.layers import Classifier

Need = Literal["features", "classifier"]


def check_model(
    model: Model,
    inputs_shape: Sequence[int],
    inputs_dtype: Any,
    num_classes: int,
    *,
    classifier: Classifier = "linear",
    needs: Sequence[Need] = (),
) -> None:
    """Raises `InputError` unless a network can be trained on such inputs; computes nothing.

    Args:
      model: the network, or networks.
      inputs_shape: of a batch, `(n, ...)`.
      inputs_dtype: type of what the network is given.
      num_classes: C.
      classifier: what the model was made with; that logits are cosines cannot be seen from shapes.
      needs: what a method needs beyond logits: `features`, that the network tells `[n, D]`; `classifier`,
        that the last layer's kernel `[D, C]` is in `params["classifier"]["kernel"]`.

    Raises:
      InputError: says in a line or two what is wrong or missing.
    """
    check_known("classifier", classifier, get_args(Classifier))
    for need in needs:
        check_known("need", need, get_args(Need))
    inputs = jax.ShapeDtypeStruct(tuple(inputs_shape), inputs_dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = _shapes("initialised", inputs, model.init, key, inputs)
    several = (model.networks,) if model.networks > 1 else ()
    expected = (*several, inputs_shape[0], num_classes)
    for train in (False, True):

        def apply(variables, inputs, key, train=train):
            return model.apply(variables, inputs, train=train, key=key)

        logits, collections = _shapes("called", inputs, apply, variables, inputs, key)
        if logits.shape != expected:
            raise InputError(
                f"The network returns logits {list(logits.shape)} for inputs {list(inputs.shape)} and "
                f"{num_classes} classes; expected {list(expected)}."
            )
        before = collections_of(variables)
        changed = [name for name, tree in before.items() if not _same(tree, collections.get(name))]
        if changed or collections.keys() != before.keys():
            raise InputError(
                "A step must leave the network's collections with the shapes and types that they had, and it "
                f"changes those of {sorted(set(changed) | (collections.keys() ^ before.keys()))}."
            )
    if "features" in needs:
        _check_features(model, variables, inputs)
    if "classifier" in needs:
        _check_classifier(model, variables, num_classes)


def _check_features(model, variables, inputs):
    if model.features is None:
        raise InputError(
            "The method needs the features that the last layer is given, and the network does not tell them: "
            "let it take features_only=True and return them, [n, D]."
        )
    features = _shapes("called with features_only=True", inputs, model.features, variables, inputs)
    if len(features.shape) != 2 or features.shape[0] != inputs.shape[0]:
        raise InputError(
            f"The network's features are {list(features.shape)} for inputs {list(inputs.shape)}; expected "
            f"[{inputs.shape[0]}, D], what the last layer is given."
        )


def _check_classifier(model, variables, num_classes):
    params = variables["params"]
    each = [params] if model.networks == 1 else params.values()
    for one in each:
        kernel = kernel_of(one)
        if kernel is None or kernel.shape[1] != num_classes:
            found = sorted(one) if isinstance(one, dict) else type(one).__name__
            raise InputError(
                f'params["classifier"]["kernel"] must be the last layer\'s kernel [D, {num_classes}], '
                f"and params has {found}: name that layer classifier (nn.Dense(..., name='classifier'))."
            )


def _shapes(what, inputs, function, *args):
    """Shapes of what the function returns; its error in one line."""
    try:
        return jax.eval_shape(function, *args)
    except InputError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"The network cannot be {what} on inputs {list(inputs.shape)} of {inputs.dtype}: "
            f"{type(error).__name__}: {first}"
        ) from error


def _same(one, other):
    """Whether two trees have the same structure, shapes and types."""
    return same_structure(one, other) and all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
