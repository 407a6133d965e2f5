"""Calls of the library with input that a person can correct, and a word that the error must hold."""

import jax
import jax.numpy as jnp
import numpy as np

import dsink_jax
from dsink_jax import data, evaluation, losses
from dsink_jax.methods import (
    CrossEntropy,
    DSink,
    EarlyLearningRegularization,
    NaiveDistillation,
    TransportReweighting,
    build_method,
    make_facts,
)
from dsink_jax.models import build_model, make_model, several
from dsink_jax.recipe import Recipe, auxiliary_specs
from dsink_jax.training import (
    Checkpointer,
    DeviceData,
    OptimizerSettings,
    TrainingSettings,
    train,
)
from dsink_jax.training_set import TrainingSet, make_folds

LOGITS = jnp.zeros((3, 4))
LABELS = jnp.zeros(3, jnp.int32)
MARGINAL = jnp.full(4, 0.25)
COUNTS = jnp.array([4, 3, 2, 1])
WIDE = jnp.zeros((3, 5))
INTEGERS = jnp.zeros((3, 4), jnp.int32)
MASK = jnp.zeros(2, bool)
MATRIX = jnp.eye(4)
IMAGES = np.zeros((20, 8, 8, 1), np.uint8)
CLASSES = np.arange(20) % 4
FACTS = make_facts([6, 5, 5, 4], 10)


def arrays(**changed):
    given = {"train_images": IMAGES, "train_labels": CLASSES, "test_images": IMAGES, "test_labels": CLASSES}
    return data.from_arrays(*(given | changed).values())


def corrupt(labels=CLASSES, num_classes=4, **changed):
    how = {"imbalance_ratio": 1.0, "noise": "symmetric", "noise_rate": 0.4, "data_seed": 0}
    return data.corrupt(labels, num_classes, **(how | changed))


def build(name, facts=FACTS, **options):
    return build_method(name, options, facts)


def reweighting(**options):
    return TransportReweighting(**({"meta_per_class": 1, "meta_labels": "observed"} | options))


def linear(networks=1):
    return make_model("linear", 4, networks=networks)


def settings(**changed):
    return TrainingSettings(**({"epochs": 1, "batch_size": 16, "optimizer": OptimizerSettings()} | changed))


def optimizer(**changed):
    return OptimizerSettings(**changed)


def trained(method=None, *, labels=CLASSES, images=IMAGES, networks=1, **changed):
    how = {"facts": FACTS, "seed": 0, "devices": jax.devices()[:1]} | changed
    return train(linear(networks), method or CrossEntropy(), DeviceData(images, labels), settings(), **how)


def recipe(**changed):
    specs = auxiliary_specs(noise_robust=CrossEntropy(), imbalance_robust=CrossEntropy())
    training_set = TrainingSet(**({"inputs": IMAGES, "labels": CLASSES, "num_classes": 4} | changed))
    return Recipe(training_set, specs, lambda method: linear(), settings(), seed=0, devices=jax.devices()[:1])


def distance(weights=LOGITS[:, 0], cost=LOGITS, **how):
    return losses.transport_distance(weights, cost, **how)


def surrogate(logits=LOGITS, noise_robust=LOGITS, marginal=MARGINAL, **how):
    return dsink_jax.surrogate_labels(logits, noise_robust, marginal, **how)


CALLS = {
    # The allocation.
    "surrogate labels of a row": (lambda: surrogate(LOGITS[0]), "[N, C]"),
    "surrogate labels of nothing": (lambda: surrogate(LOGITS[:0], LOGITS[:0]), "[0, 4]"),
    "surrogate labels without classes": (lambda: surrogate(LOGITS[:, :0], LOGITS[:, :0]), "[3, 0]"),
    "surrogate labels of integers": (lambda: surrogate(INTEGERS), "floating"),
    "surrogate labels of a list": (lambda: surrogate([[0.0]]), "must be an array, got list"),
    "logits of another machine": (lambda: surrogate(np.zeros((3, 4), ">f4")), ">f4"),
    "logits of 128 bits": (lambda: surrogate(np.zeros((3, 4), np.longdouble)), "that JAX has"),
    "labels of another machine": (
        lambda: losses.focal_cross_entropy(LOGITS, np.zeros(3, ">i4")),
        "labels must have a type",
    ),
    "f_N of another shape": (lambda: surrogate(noise_robust=WIDE), "noise_robust_logits"),
    "f_N of integers": (lambda: surrogate(noise_robust=INTEGERS), "noise_robust_logits"),
    "class marginal of another length": (lambda: surrogate(marginal=MARGINAL[:3]), "class_marginal"),
    "class marginal of integers": (lambda: surrogate(marginal=COUNTS), "class_marginal must be floating"),
    "no class marginal": (lambda: surrogate(marginal=None), "class_marginal must be an array"),
    "mask of another length": (lambda: surrogate(where=MASK), "where"),
    "mask of integers": (lambda: surrogate(where=LABELS), "bool"),
    "mask in a list": (lambda: surrogate(where=[True] * 3), "where must be an array"),
    "threshold zero": (lambda: surrogate(threshold=0.0), "threshold"),
    "threshold not a number": (lambda: surrogate(threshold=float("nan")), "threshold"),
    "threshold in words": (lambda: surrogate(threshold="tight"), "'tight'"),
    "no iterations": (lambda: surrogate(max_iterations=0), "max_iterations"),
    "half an iteration": (lambda: surrogate(max_iterations=1.5), "1.5"),
    "iterations beyond 32 bits": (lambda: surrogate(max_iterations=10**12), "max_iterations"),
    "class marginal of integer logits": (lambda: dsink_jax.class_marginal(INTEGERS), "imbalance_robust"),
    "class marginal of a row": (lambda: dsink_jax.class_marginal(MARGINAL), "[N, C]"),
    # The losses.
    "dsink without f_L": (lambda: losses.dsink_loss(LOGITS, LOGITS, None), "imbalance_robust_logits"),
    "dsink with another f_L": (lambda: losses.dsink_loss(LOGITS, LOGITS, WIDE), "imbalance_robust_logits"),
    "naive weight": (lambda: losses.naive_distillation_loss(LOGITS, LOGITS, LOGITS, 1.5), "noise_weight"),
    "soft labels of another shape": (lambda: losses.divergence_from_labels(LOGITS, WIDE), "labels"),
    "prior of another length": (
        lambda: losses.logit_adjusted_cross_entropy(LOGITS, LABELS, MARGINAL[:3]),
        "class_prior",
    ),
    "prior in a list": (lambda: losses.logit_adjusted_cross_entropy(LOGITS, LABELS, [1.0]), "class_prior"),
    "negative tau": (lambda: losses.logit_adjusted_cross_entropy(LOGITS, LABELS, MARGINAL, -1.0), "tau"),
    "tau in words": (lambda: losses.logit_adjusted_cross_entropy(LOGITS, LABELS, MARGINAL, "1"), "a number"),
    "ldam of an empty class": (lambda: losses.ldam(LOGITS, LABELS, COUNTS - 1), "class 3 has 0"),
    "ldam of a negative margin": (lambda: losses.ldam(LOGITS, LABELS, COUNTS, -0.1), "max_margin"),
    "ldam of an infinite scale": (lambda: losses.ldam(LOGITS, LABELS, COUNTS, scale=np.inf), "scale"),
    "weights of rank 2": (lambda: losses.class_balanced_weights(MATRIX), "class_counts"),
    "weights of a list": (lambda: losses.class_balanced_weights([1, 2]), "class_counts"),
    "beta one": (lambda: losses.class_balanced_weights(COUNTS, 1.0), "beta"),
    "negative gamma": (lambda: losses.focal_cross_entropy(LOGITS, LABELS, -1.0), "gamma"),
    "labels of another length": (lambda: losses.focal_cross_entropy(LOGITS, LABELS[:2]), "classes, [3]"),
    "labels that are floats": (lambda: losses.generalized_cross_entropy(LOGITS, MARGINAL[:3]), "integers"),
    "labels in a list": (lambda: losses.generalized_cross_entropy(LOGITS, [0, 1, 2]), "labels must be an"),
    "logits without classes": (lambda: losses.focal_cross_entropy(LOGITS[:, :0], LABELS), "[3, 0]"),
    "q zero": (lambda: losses.generalized_cross_entropy(LOGITS, LABELS, 0.0), "q must be in (0.0, 1.0]"),
    "targets of another shape": (lambda: losses.early_learning_regularized(LOGITS, LABELS, WIDE), "targets"),
    "momentum above 1": (lambda: losses.early_learning_targets(LOGITS, LOGITS, 1.1), "momentum"),
    "negative reverse term": (
        lambda: losses.symmetric_cross_entropy(LOGITS, LABELS, beta=-1),
        "beta must be at least 0",
    ),
    "soft bootstrapping": (lambda: losses.soft_bootstrapping(LOGITS, LABELS, 2.0), "beta"),
    "hard bootstrapping": (lambda: losses.hard_bootstrapping(LOGITS, LABELS, None), "beta must be a number"),
    "matrix of another shape": (
        lambda: losses.forward_corrected_cross_entropy(LOGITS, LABELS, jnp.eye(3)),
        "transition_matrix",
    ),
    "matrix in a tuple": (
        lambda: losses.forward_corrected_cross_entropy(LOGITS, LABELS, ((1.0,),)),
        "transition_matrix must be an array",
    ),
    "distance without a meta set": (lambda: distance(cost=LOGITS[:, :0]), "[3, 0]"),
    "distance of other weights": (lambda: distance(MARGINAL), "weights"),
    "epsilon zero": (lambda: distance(epsilon=0.0), "epsilon"),
    "distance with no threshold": (lambda: distance(threshold=0.0), "threshold"),
    "distance without iterations": (lambda: distance(max_iterations=0), "max_iterations"),
    "features of other sizes": (lambda: losses.feature_cost(LOGITS, WIDE), "[3, 5]"),
    "label cost of one-hot labels": (lambda: losses.label_cost(LOGITS, LABELS, 4), "[N] and [M]"),
    # Data.
    "labels beside images": (lambda: arrays(train_labels=CLASSES[:-1]), "19 labels"),
    "a label of a billion": (lambda: arrays(test_labels=CLASSES + 10**9), "gaps"),
    "images in uneven rows": (lambda: arrays(train_images=[[1], [1, 2]]), "train_images"),
    "images of other sizes": (lambda: arrays(test_images=IMAGES[:, 1:]), "Training images are"),
    "boolean labels": (lambda: arrays(train_labels=CLASSES > 1), "integers"),
    "infinite images": (lambda: arrays(train_images=np.full(IMAGES.shape, np.inf)), "infinity"),
    "complex images": (lambda: arrays(train_images=IMAGES + 0j), "complex"),
    "unknown noise": (lambda: corrupt(noise="pink"), "pink"),
    "no noise rate": (lambda: corrupt(noise_rate=None), "rate"),
    "noise rate in words": (lambda: corrupt(noise_rate="half"), "half"),
    "noise rate not a number": (lambda: corrupt(noise_rate=np.nan), "nan"),
    "imbalance ratio not a number": (lambda: corrupt(imbalance_ratio=np.nan), "ratio"),
    "imbalance ratio in words": (lambda: corrupt(imbalance_ratio="10"), "ratio"),
    "negative data seed": (lambda: corrupt(data_seed=-1), "data seed"),
    "half a data seed": (lambda: corrupt(data_seed=0.5), "0.5"),
    "map seed beyond 32 bits": (lambda: corrupt(noise="asymmetric", map_seed=2**32), "map seed"),
    "labels of one class": (lambda: corrupt(CLASSES * 0, 1), "2 classes"),
    "no labels": (lambda: corrupt(CLASSES[:0]), "no training example"),
    "floating labels": (lambda: corrupt(CLASSES / 1), "float64"),
    "labels out of range": (lambda: corrupt(CLASSES + 1), "num_classes"),
    "a class without labels": (lambda: corrupt(CLASSES, 5), "[4]"),
    "no human labels": (lambda: corrupt(noise="human_worse"), "human labels"),
    "few human labels": (lambda: corrupt(noise="human_worse", human_labels=CLASSES[1:]), "19 human labels"),
    "long tail of one class": (lambda: data.long_tail_counts(10, 1, 2.0), "2 classes"),
    "long tail of nothing": (lambda: data.long_tail_counts(0, 2, 1.0), "at least 1 example"),
    "long tail beyond all counts": (lambda: data.long_tail_counts(10**30, 2, 2.0), "largest class"),
    "matrix of one class": (lambda: data.transition_matrix("symmetric_others", 0.4, 1), "2 classes"),
    "matrix without a rate": (lambda: data.transition_matrix("symmetric", None, 4), "rate"),
    "matrix of human noise": (lambda: data.transition_matrix("human_worse", 0.4, 10), "labels"),
    "joint noise without counts": (lambda: data.transition_matrix("joint", 0.4, 4), "class_counts"),
    "joint noise of other counts": (
        lambda: data.transition_matrix("joint", 0.4, 4, class_counts=np.ones(3)),
        "class_counts",
    ),
    "joint noise of negative counts": (
        lambda: data.transition_matrix("joint", 0.4, 2, class_counts=np.array([1, -1])),
        "class_counts",
    ),
    "DivideMix's map of four classes": (
        lambda: data.transition_matrix("asymmetric_dividemix", 0.4, 4),
        "ten classes",
    ),
    "no meta set": (lambda: data.draw_meta_set(CLASSES, 0, 4, 0), "at least 1"),
    "negative meta set": (lambda: data.draw_meta_set(CLASSES, -1, 4, 0), "-1"),
    "meta set of whole classes": (lambda: data.draw_meta_set(CLASSES, 5, 4, 0), "too large"),
    "meta set of other labels": (lambda: data.draw_meta_set(CLASSES - 1, 1, 4, 0), "-1 to 2"),
    "unknown data set": (lambda: data.load("cifer10"), "cifar10"),
    "data set of an unknown user": (lambda: data.load("~nobody-here/x.npz"), "home directory"),
    "human labels of the digits": (lambda: data.load_human_labels("digits", "worse"), "digits"),
    "human labels of another kind": (lambda: data.load_human_labels("cifar10", "best"), "best"),
    # Measures.
    "accuracy of other lengths": (
        lambda: evaluation.per_class_accuracy(CLASSES[1:], CLASSES, 4),
        "[19] and [20]",
    ),
    "accuracy of too few classes": (lambda: evaluation.per_class_accuracy(CLASSES, CLASSES, 3), "0 to 3"),
    "groups of a matrix": (lambda: evaluation.class_groups(np.eye(2)), "counts"),
    "calibration of nothing": (
        lambda: evaluation.expected_calibration_error(np.zeros((0, 4)), CLASSES[:0]),
        "[0, 4]",
    ),
    "calibration of NaN": (
        lambda: evaluation.expected_calibration_error(np.full((20, 4), np.nan), CLASSES),
        "NaN",
    ),
    "no bins": (lambda: evaluation.expected_calibration_error(np.eye(4), np.arange(4), 0), "bins"),
    # Methods and networks.
    "unknown method": (lambda: build("erl"), "Did you mean 'elr'"),
    "option in words": (lambda: build("elr", weight="much"), "elr: weight must be a number"),
    "option out of range": (lambda: build("gce", q=2.0), "gce: q"),
    "option that is none": (lambda: build("elr", momentun=0.5), "Did you mean 'momentum'"),
    "option that is set to none": (
        lambda: EarlyLearningRegularization().set_params(momentun=0.5),
        "Did you mean 'momentum'",
    ),
    "option that is set out of range": (
        lambda: EarlyLearningRegularization().set_params(momentum=2.0),
        "momentum",
    ),
    "method that is not told": (lambda: build("coteaching"), "CoTeaching(noise_rate='estimated')"),
    "method of an empty class": (
        lambda: build("class_balanced", make_facts([6, 5, 5, 0], 10)),
        "class 3",
    ),
    "no method": (lambda: build_method(3), "A method must be a name"),
    "negative alpha": (lambda: DSink(-1.0), "alpha"),
    "weight of the noise-robust model": (lambda: NaiveDistillation(1.0, noise_weight=1.5), "noise_weight"),
    "re-weighting without a meta set": (lambda: reweighting(meta_per_class=None), "meta_per_class"),
    "re-weighting by other labels": (lambda: reweighting(meta_labels="true"), "meta_labels"),
    "re-weighting with a cost of its own": (lambda: reweighting(cost="both"), "cost"),
    "re-weighting from the start": (lambda: reweighting(share=0.0), "share"),
    "re-weighting with no entropy": (lambda: reweighting(epsilon=0.0), "epsilon"),
    "re-weighting uphill": (lambda: reweighting(weight_rate=-1.0), "weight_rate"),
    "unknown network": (lambda: build_model("resnet2", 4), "Known models"),
    "unknown compute type": (lambda: build_model("small_cnn", 4, compute_dtype="float64"), "float64"),
    "no networks": (lambda: several(linear(), 0), "networks"),
    # Several labels.
    "several labels: marginal of another size": (
        lambda: dsink_jax.multilabel_surrogate_labels(LOGITS, LOGITS, MARGINAL[:3]),
        "[C] = [4]",
    ),
    "several labels: integer logits": (
        lambda: dsink_jax.multilabel_surrogate_labels(INTEGERS, INTEGERS, MARGINAL),
        "floating",
    ),
    "several labels: counts of other examples": (
        lambda: dsink_jax.multilabel_surrogate_labels(LOGITS, LOGITS, MARGINAL, label_counts=jnp.zeros(2)),
        "[N] = [3]",
    ),
    "several labels: no threshold": (
        lambda: dsink_jax.multilabel_surrogate_labels(LOGITS, LOGITS, MARGINAL, threshold=0.0),
        "threshold",
    ),
    "several labels: mask of other examples": (
        lambda: dsink_jax.multilabel_class_marginal(LOGITS, where=MASK),
        "where",
    ),
    "several labels: models that do not go together": (
        lambda: dsink_jax.multilabel_dsink_loss(LOGITS, WIDE, LOGITS),
        "noise_robust_logits",
    ),
    "several labels: labels that are classes": (
        lambda: losses.generalized_binary_cross_entropy(LOGITS, LABELS),
        "shape of logits",
    ),
    "several labels: prior of another size": (
        lambda: losses.logit_adjusted_binary_cross_entropy(LOGITS, INTEGERS, MARGINAL[:3]),
        "class_prior",
    ),
    "several labels: q of 0": (
        lambda: losses.generalized_binary_cross_entropy(LOGITS, INTEGERS, q=0.0),
        "q must be",
    ),
    # Examples of no class.
    "marginal of no known": (
        lambda: dsink_jax.open_set_class_marginal(LOGITS, LOGITS, LOGITS, 0.0),
        "known_share",
    ),
    "marginal of the known without f_L": (
        lambda: dsink_jax.open_set_class_marginal(WIDE, LOGITS, LOGITS, 0.5),
        "imbalance_robust_logits",
    ),
    "nothing known": (
        lambda: dsink_jax.open_set_surrogate_labels(LOGITS, LOGITS, MARGINAL, 0.0),
        "known_share must be in (0, 1]",
    ),
    "more known than there is": (
        lambda: dsink_jax.open_set_dsink_loss(LOGITS, LOGITS, LOGITS, 1.5),
        "known_share must be in (0, 1]",
    ),
    "known share in words": (
        lambda: dsink_jax.open_set_surrogate_labels(LOGITS, LOGITS, MARGINAL, "all"),
        "known_share",
    ),
    "known shares of the classes": (
        lambda: jax.jit(dsink_jax.open_set_surrogate_labels)(LOGITS, LOGITS, MARGINAL, MARGINAL),
        "one float",
    ),
    "examples of no class: marginal of another size": (
        lambda: dsink_jax.open_set_surrogate_labels(LOGITS, LOGITS, MARGINAL[:3], 0.5),
        "[C] = [4]",
    ),
    "examples of no class: integer logits": (
        lambda: dsink_jax.estimate_known_share(INTEGERS, INTEGERS),
        "floating",
    ),
    "examples of no class: NaN": (
        lambda: dsink_jax.estimate_known_share(LOGITS * np.nan, LOGITS),
        "example 0",
    ),
    # Training.
    "no epochs": (lambda: settings(epochs=0), "epochs"),
    "half an epoch": (lambda: settings(epochs=0.5), "epochs must be an integer"),
    "never evaluated": (lambda: settings(evaluate_every=0), "evaluate_every"),
    "never saved": (lambda: settings(checkpoint_every=0), "checkpoint_every"),
    "no steps in a dispatch": (lambda: settings(steps_per_dispatch=0), "steps_per_dispatch"),
    "end before the start": (lambda: settings(end_after=0), "end_after"),
    "state of integers": (lambda: settings(state_dtype="int8"), "float16"),
    "NaN to be ignored": (lambda: settings(on_nan="ignore"), "skip"),
    "unknown schedule": (lambda: optimizer(schedule="linear"), "cosine"),
    "learning rate not a number": (lambda: optimizer(learning_rate=np.nan), "learning rate"),
    "momentum one": (lambda: optimizer(momentum=1.0), "Momentum"),
    "no checkpoint to keep": (lambda: Checkpointer(None, keep=0), "At least 1"),
    "no devices": (lambda: trained(devices=[]), "device"),
    "batch of seven devices": (lambda: trained(devices=jax.devices()[:7]), "14"),
    "more labels than images": (lambda: trained(images=IMAGES[1:]), "[19, 8, 8, 1]"),
    "nothing to train on": (lambda: trained(images=IMAGES[:0], labels=CLASSES[:0]), "0 labels"),
    "labels that are no classes": (lambda: trained(labels=CLASSES + 1), "1 to 4"),
    "inputs of one axis": (lambda: trained(images=IMAGES[:, 0, 0, 0]), "[M, ...]"),
    "negative seed": (lambda: trained(seed=-1), "seed"),
    "second stage from nothing": (lambda: trained(build("crt")), "start_from"),
    "one network of two": (lambda: trained(build("coteaching", noise_rate=0.4)), "several"),
    "meta set that is not given": (lambda: trained(reweighting(), start_from={}), "meta_index"),
    "auxiliaries that are not given": (lambda: trained(term=DSink(1.0)), "auxiliaries"),
    "optimiser that is none": (lambda: optimizer(name="adam"), "adamw"),
    "average of nothing": (lambda: settings(average_decay=1.0), "average_decay"),
    "recipe of labels that are no classes": (lambda: recipe(labels=CLASSES + 1), "1 to 4"),
    "recipe of another number of classes": (lambda: recipe(num_classes=5), "5]"),
    "no folds": (lambda: make_folds(CLASSES, 1, 0), "folds"),
}
