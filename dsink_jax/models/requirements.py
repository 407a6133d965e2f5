"""Whether a network can do what is asked of it, found out by shapes alone, before anything is trained."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax

from dsink_jax.errors import InputError, check_known
from dsink_jax.models.interface import Model, collections_of
from dsink_jax.models.layers import Classifier
from dsink_jax.models.wrapping import kernel_of

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
      classifier: what the model was made with; shapes do not tell whether logits are cosines.
      needs: what a method needs beyond logits: `features`, that each network tells `[n, D]`; `classifier`,
        that the last layer's kernel `[D, C]` is in `params["classifier"]["kernel"]`.
    """
    check_known("classifier", classifier, get_args(Classifier))
    for need in needs:
        check_known("need", need, get_args(Need))
    inputs = jax.ShapeDtypeStruct(tuple(inputs_shape), inputs_dtype)
    given = f"inputs {list(inputs.shape)}"

    def shapes(what, function, *args, **named):
        try:
            return jax.eval_shape(function, *args, **named)
        except InputError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            raise InputError(f"The network cannot be {what} on {given} of {inputs.dtype}: {why}") from error

    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = shapes("initialised", model.init, key, inputs)
    before = collections_of(variables)
    expected = [*([model.networks] if model.networks > 1 else []), inputs_shape[0], num_classes]
    for train in (False, True):
        logits, after = shapes("called", partial(model.apply, train=train), variables, inputs, key=key)
        if list(logits.shape) != expected:
            returned = f"logits {list(logits.shape)} for {given} and {num_classes} classes"
            raise InputError(f"The network returns {returned}; expected {expected}.")
        names = before.keys() | after.keys()
        if changed := sorted(one for one in names if _kind(before.get(one)) != _kind(after.get(one))):
            had = "A step must leave the network's collections with the shapes and types that they had"
            raise InputError(f"{had}, and it changes those of {changed}.")
    if "features" in needs:
        if model.features is None:
            needed = "The method needs the features [n, D] that the network's last layer is given"
            raise InputError(f"{needed}: let it take features_only=True and return them.")
        shape = shapes("called with features_only=True", model.features, variables, inputs).shape
        shape = shape[1:] if model.networks > 1 else shape  # of one of them
        if len(shape) != 2 or shape[0] != inputs_shape[0]:
            raise InputError(f"The network's features are {list(shape)} for {given}; expected [n, D].")
    params = variables["params"]
    for one in (params.values() if model.networks > 1 else [params]) if "classifier" in needs else ():
        kernel = kernel_of(one)
        if kernel is None or kernel.shape[1] != num_classes:
            found: Any = sorted(one) if isinstance(one, dict) else type(one).__name__
            raise InputError(
                f'params["classifier"]["kernel"] must be the last layer\'s kernel [D, {num_classes}], '
                f"and params has {found}: name that layer classifier (nn.Dense(..., name='classifier'))."
            )


def _kind(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
