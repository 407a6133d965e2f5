"""What every method promises, whichever it is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn

from dsink_jax.errors import InputError
from dsink_jax.methods import (
    METHODS,
    Method,
    build_method,
    bytes_per_example,
    make_facts,
    method_options,
    numbers_of,
    static_part,
    with_numbers,
)
from dsink_jax.methods.docstrings import attribute_help
from method_references import (
    CLASSES,
    EXAMPLES,
    FACTS,
    LABELS,
    LOGITS,
    PRIOR,
    REQUIRED,
    assert_equal_trees,
    build,
    context,
    full_batch,
    kernels,
    linear_networks,
    loss_of,
    prepared,
    rows,
    some_state,
)

EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
# Of the methods that take long to compile the quick tests leave out what the others show too.
_LONG = ("mixup", "coteaching", "dividemix", "tabasco", "ot_reweighting")
QUICKEST_METHODS = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in _LONG)) for name in METHODS]
)
NEED_EVERY_CLASS = {"posthoc_logit_adjustment", "ldam_drw", "class_balanced", "ot_reweighting"}
# What is not a number is static; a value that is not the default, for each.
STATIC = {
    "ot_reweighting": {
        "meta_per_class": 3,
        "meta_labels": "clean",
        "cost": "label",
        "meta_set": "whole",
        "trains": "network",
        "cuts_first": True,
    },
    "truncated_gce": {"every": 3},
    "forward_correction": {"matrix": "known"},
    "coteaching": {"noise_rate": "estimated"},
    "dividemix": {"penalty": "none"},
    "tabasco": {"penalty": "none"},
}
TEMPERED = ("logit_adjustment", "balanced_softmax", "gce", "forward_correction")
WHERE = np.array([True] * 6 + [False] * 2)
LATE = 17.0  # of 20 epochs: all that sets in late has set in


def with_other_numbers(name):
    """The method with all numbers changed: 0.625 is in every range and no default."""
    return build(name, **dict.fromkeys(numbers_of(build(name)).keys() & method_options(name).keys(), 0.625))


def whole(method, own_kernels, batch, state, axis_name=None):
    """Summed loss of the valid rows of a device; what `loss` returned and was given, for linear networks."""
    networks = linear_networks(own_kernels)
    batch = prepared(method, batch, state, epoch=LATE, axis_name=axis_name, networks=networks)
    outputs = networks.logits(batch.inputs if batch.prepared is None else batch.prepared)
    result = method.loss(outputs, batch, state, context(method, LATE, axis_name=axis_name))
    return jnp.where(batch.where, result.values, 0.0).sum(), (result, batch, outputs)


traced = []  # the static part of each method that a program was made for


@functools.partial(jax.jit, static_argnums=0)
def program(static, numbers, own_kernels, batch, state):
    traced.append(static)
    local = functools.partial(whole, with_numbers(static, numbers))
    (_, outcome), gradient = jax.value_and_grad(local, has_aux=True)(own_kernels, batch, state)
    return *outcome, gradient


def arguments(method):
    return kernels(method.networks), full_batch(WHERE), some_state(method)


def evaluated(method):
    """The result of `loss`, batch and outputs that it was given, and the gradient of the networks."""
    return program(static_part(method), numbers_of(method), *arguments(method))


@EVERY_METHOD
def test_options_are_documented_and_have_defaults(name):
    kind, options = METHODS[name].method, method_options(name)
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(kind))
    described = attribute_help(kind)
    assert described.keys() == options.keys()
    assert all(text.endswith(".") for text in described.values())
    assert {option for option, field in options.items() if field.default is None} == set(kind.required)
    method = build(name)
    assert numbers_of(method).keys() | STATIC.get(name, {}).keys() >= options.keys()
    for option, value in ({o: 0.625 for o in options} | STATIC.get(name, {})).items():
        changed = build(name, **{option: value})
        assert changed.get_params() == method.get_params() | {option: value}
        assert getattr(method, option) != value


@EVERY_METHOD
def test_equal_by_options_and_static_part(name):
    method, twin, other = build(name), build(name), with_other_numbers(name)
    assert method == twin and hash(method) == hash(twin)
    assert (method == other) == (not method_options(name) or not numbers_of(method))
    assert static_part(method) == static_part(other)
    assert hash(static_part(method)) == hash(static_part(other))
    assert with_numbers(static_part(other), numbers_of(other)) == other
    for option, value in STATIC.get(name, {}).items():
        assert static_part(build(name, **{option: value})) != static_part(method)


@EVERY_METHOD
def test_scikit_learn_reads_changes_and_clones_options(name):
    method = with_other_numbers(name)
    clone = sklearn.base.clone(method)
    assert clone == method and clone is not method
    options = method.get_params()
    assert options.keys() == method_options(name).keys()
    changed = build(name).set_params(**options)
    assert changed == method
    with pytest.raises(InputError, match=r"^Unknown option 'mass'") as refused:
        changed.set_params(mass=1.0)
    assert len(str(refused.value).splitlines()) == 1
    for option in numbers_of(method).keys() & options.keys():
        with pytest.raises(InputError, match=f"^{option} must be .*got -1") as refused:
            changed.set_params(**{option: -1.0})
        assert len(str(refused.value).splitlines()) == 1
    assert changed == method  # unchanged by what was refused


@QUICKEST_METHODS
def test_numbers_are_arguments_of_one_program(name):
    """Losses by traced numbers are those by concrete ones, and other numbers compile nothing anew."""
    method, other = build(name), with_other_numbers(name)
    _, (expected, _, _) = jax.jit(whole, static_argnums=0)(other, *arguments(other))
    np.testing.assert_allclose(evaluated(other)[0].values, expected.values, rtol=1e-3, atol=1e-5)
    result, *_, gradient = evaluated(method)
    assert traced.count(static_part(method)) == 1
    assert (result.values.shape, result.values.dtype) == ((EXAMPLES,), jnp.float32)
    assert np.isfinite(result.values).all() and np.isfinite(gradient).all()
    assert all(metric.shape in ((), (EXAMPLES,), (EXAMPLES, 2)) for metric in result.metrics.values())


@QUICKEST_METHODS
def test_one_device_and_eight_give_the_same(name, cpus):
    """One example each, of which two are padding: values, new state and the summed gradient."""
    method = build(name)
    own_kernels, batch, state = arguments(method)
    expected, *_, gradient = evaluated(method)

    def one_device(inputs, second_view, labels, where, state):
        own = batch._replace(inputs=inputs, second_view=second_view, labels=labels, where=where)
        local = functools.partial(whole, method, axis_name="devices")
        (_, (result, *_)), gradient = jax.value_and_grad(local, has_aux=True)(own_kernels, own, state)
        return result.values, result.example_state, jax.lax.psum(gradient, "devices")

    own = (batch.inputs, batch.second_view, batch.labels, batch.where, state)
    mapped = jax.pmap(one_device, axis_name="devices", devices=cpus)
    values, new_state, summed = mapped(*jax.tree.map(lambda x: x[:, None], own))
    np.testing.assert_allclose(values[WHERE, 0], expected.values[WHERE], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(summed[0], gradient, rtol=1e-4, atol=1e-4)
    for new, old in zip(jax.tree.leaves(new_state), jax.tree.leaves(expected.example_state), strict=True):
        np.testing.assert_allclose(new[WHERE, 0], old[WHERE], rtol=1e-4, atol=1e-5)


@EVERY_METHOD
def test_padding_does_not_matter(name):
    """Other outputs, labels and state in padded rows leave values and state of the others."""
    method, state = build(name), some_state(build(name))
    _, batch, outputs, _ = evaluated(method)
    padded = np.resize(~WHERE, EXAMPLES * (outputs.shape[-2] // EXAMPLES))  # of both views
    padded = np.pad(padded, (0, outputs.shape[-2] - len(padded)))  # of the meta set none
    other = np.where(padded[:, None], 7 - outputs, outputs)
    labels = np.where(WHERE, LABELS, (LABELS + 1) % CLASSES)
    other_state = jax.tree.map(lambda s: jnp.where(WHERE.reshape(-1, *[1] * (s.ndim - 1)), s, 0.1), state)
    one = loss_of(method, outputs, state, LATE, batch)
    two = loss_of(method, other, other_state, LATE, batch._replace(labels=jnp.asarray(labels)))
    np.testing.assert_allclose(two.values[WHERE], one.values[WHERE], rtol=1e-6)
    for new, old in zip(jax.tree.leaves(two.example_state), jax.tree.leaves(one.example_state), strict=True):
        np.testing.assert_allclose(new[WHERE], old[WHERE], rtol=1e-6)


@EVERY_METHOD
def test_state_of_each_example(name):
    """Its size and shape, and that a row depends on the outputs of no other example."""
    method = build(name)
    state = method.init(7, CLASSES)
    assert all(len(leaf) == 7 and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    of_two = dict.fromkeys(("dividemix", "tabasco", "ot_reweighting"), 2)
    numbers = {"elr": CLASSES, "truncated_gce": 1, **of_two}.get(name, 0)
    assert bytes_per_example(method, CLASSES) == 4 * numbers == 2 * bytes_per_example(method, CLASSES, 2)
    result, batch, outputs, _ = evaluated(method)
    assert jax.tree.structure(result.example_state) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(result.example_state), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype) == ((EXAMPLES, *old.shape[1:]), old.dtype)
    other = np.where(np.arange(outputs.shape[-2])[:, None] % EXAMPLES < 4, outputs, 7 - outputs)
    one, two = (loss_of(method, logits, some_state(method), batch=batch) for logits in (outputs, other))
    assert_equal_trees(*(jax.tree.map(lambda leaf: leaf[:4], each.example_state) for each in (one, two)))


@EVERY_METHOD
def test_predictions(name):
    """The outputs, or the mean of both networks', but where a paper or a temperature says otherwise."""
    method = with_other_numbers(name)
    outputs = LOGITS if method.networks == 1 else np.stack([LOGITS, rows(5)])

    @functools.partial(jax.jit, static_argnums=0)
    def predict(static, numbers, logits, facts):
        return with_numbers(static, numbers).predict(logits, facts)

    predicted = predict(static_part(method), numbers_of(method), outputs, FACTS)
    expected = {
        "ldam_drw": 0.625 * LOGITS,
        "posthoc_logit_adjustment": (LOGITS - 0.625 * np.log(PRIOR)) / 0.625,
        **dict.fromkeys(TEMPERED, LOGITS / 0.625),
    }.get(name, LOGITS if method.networks == 1 else (LOGITS + rows(5)) / 2)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    assert predicted.dtype == jnp.float32


@EVERY_METHOD
def test_built_by_name_object_or_function(name):
    method = build(name)
    assert build_method(method, facts=FACTS) is method
    assert build_method(lambda facts: method, facts=FACTS) is method
    assert build_method(name, REQUIRED.get(name)) == method == METHODS[name].method(**REQUIRED.get(name, {}))
    # Alone, without what it requires, it says what that is; following the advice helps.
    given = {}
    for option in METHODS[name].method.required:
        with pytest.raises(InputError, match=f"^{name} must be given its ") as refused:
            build_method(name, given)
        advice = str(refused.value).removesuffix(".").rsplit("such as ", 1)[1]
        example = eval(advice.replace(METHODS[name].method.__name__, "dict"))
        assert list(example) == [option]
        given |= example
    assert isinstance(build_method(name, given), Method)
    if given:
        with pytest.raises(InputError, match="must be given"):
            METHODS[name].method()


@EVERY_METHOD
def test_a_class_without_examples(name):
    facts = make_facts((50, 0, 20), 20)
    if name not in NEED_EVERY_CLASS:
        assert build(name, facts) == build(name)
        return
    for made in (name, build(name), lambda facts: build(name)):
        options = REQUIRED.get(name) if made is name else None
        with pytest.raises(InputError, match=f"^{name}: needs examples of every class, but class 1 has none"):
            build_method(made, options, facts)
