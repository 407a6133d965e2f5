"""The three models of a fit by their roles: networks and methods, from the settings and what is known."""

from typing import Final, Literal, NamedTuple

from dsink_jax.errors import InputError
from dsink_jax.estimator.settings import Settings
from dsink_jax.methods import DSink, Method, TrainingFacts, Weighting, build_method
from dsink_jax.models import FOR_VECTORS, Model, build_model, from_linen, several
from dsink_jax.models.interface import Variables
from dsink_jax.training import AXIS

Role = Literal["target", "noise_robust", "imbalance_robust"]
# f_N with its logits adjusted by its own class prior: no training of its own.
ADJUSTED: Final = "noise_robust_adjusted"
Predictor = Literal[Role, "noise_robust_adjusted"]
_FOR_VECTORS = f"choose {' or '.join(FOR_VECTORS)}, or give a function that makes a module of your own"


class Part(NamedTuple):
    """One of the three models: its network, what it was trained with, and its parameters."""

    model: Model
    method: Method
    variables: Variables


def make_methods(settings: Settings, facts: TrainingFacts) -> dict[Role, Method]:
    """What the models optimise, the auxiliaries first.

    Raises:
      InputError: for an option that is out of range, or one that has to be told and is not.
    """
    methods: dict[Role, Method] = {
        "imbalance_robust": build_method(settings.imbalance_method, facts, settings.options),
        "noise_robust": build_method(settings.noise_method, facts, settings.options),
        "target": DSink(build_method(settings.base, facts, settings.options), Weighting(settings.alpha)),
    }
    if any(method.meta_per_class and method.meta_labels == "clean" for method in methods.values()):
        raise InputError("Clean labels are not known here: a meta set must have observed labels.")
    return methods


def make_model(settings: Settings, method: Method, num_classes: int, is_image: bool) -> Model:
    """The network, or networks, that a method trains.

    Raises:
      InputError: for a network of images that is to be given vectors.
    """
    make = settings.model
    if isinstance(make, str):
        name = ("wide_cnn" if is_image else "linear") if make == "auto" else make
        if not is_image and name not in FOR_VECTORS:
            raise InputError(f"The model {name} is for images, and the inputs are vectors: {_FOR_VECTORS}.")
        model = build_model(name, num_classes, classifier=method.classifier, axis_name=AXIS)
        return several(model, method.networks)

    def make_module(axis_name):
        return make(num_classes=num_classes, classifier=method.classifier, axis_name=axis_name)

    model = from_linen(make_module, AXIS)
    return several(model if is_image else _of_vectors(model), method.networks)


def _of_vectors(model):
    """The same of vectors `[N, D]`, which the training loop has as images of one pixel."""

    def vectors(inputs):
        return inputs.reshape(len(inputs), -1)

    def features(variables, inputs):
        return model.features(variables, vectors(inputs))

    return Model(
        lambda key, inputs: model.init(key, vectors(inputs)),
        lambda variables, inputs, train: model.apply(variables, vectors(inputs), train),
        None if model.features is None else features,
    )
