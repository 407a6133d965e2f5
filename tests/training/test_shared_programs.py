"""Compiled programs are shared by trainings whose data and numbers differ, and nothing is traced again."""

import dataclasses
import functools
from typing import ClassVar

import chex
import jax
import numpy as np
import pytest

from dsink_jax.methods import (
    DSink,
    ForwardCorrection,
    GeneralizedCrossEntropy,
    LogitAdjustment,
    make_facts,
)
from dsink_jax.training import DeviceData, OptimizerSettings
from dsink_jax.training.placement import rounded_up
from tiny_training import NUM_CLASSES, STANDARDIZATION, tiny_model, train, with_auxiliaries

compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compilations.append(name) if "backend_compile" in name else None
)


@dataclasses.dataclass(frozen=True)
class Watched(LogitAdjustment):
    """Tells when its loss is traced."""

    traces: ClassVar[list] = []

    def loss(self, *arguments):
        self.traces.append("loss")
        return super().loss(*arguments)


def random_data(rows, seed):
    rng = np.random.default_rng(seed)
    inputs, labels = rng.integers(0, 255, (rows, 8, 8, 1)), rng.integers(0, NUM_CLASSES, rows)
    return with_auxiliaries(DeviceData(inputs.astype(np.uint8), labels.astype(np.int32)), seed)


OPTIMIZERS = {
    "sgd": (OptimizerSettings(), OptimizerSettings("sgd", 0.1, "cosine", 0.5, False, 1e-3)),
    "adamw": (OptimizerSettings("adamw", 1e-3), OptimizerSettings("adamw", 2e-3, weight_decay=0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "together"), [(1, 1), (1, 4), (8, 1)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_other_data_and_numbers_compile_nothing(optimizer, devices, together, cpus):
    assert rounded_up(400) == rounded_up(401)
    first, second = OPTIMIZERS[optimizer]
    model, traces = tiny_model(Watched()), Watched.traces

    def apply(*arguments, **options):
        traces.append("apply")
        return tiny_model(Watched()).apply(*arguments, **options)

    model = model._replace(apply=apply)

    def run(method, term, optimizer, rows, seed, epochs, decay):
        data = random_data(rows, seed)

        def evaluate(trained):
            logits = trained.logits(data.inputs[: rows - 300], STANDARDIZATION, cpus[:devices])
            return {"accuracy": float((logits.argmax(-1) == data.labels[: rows - 300]).mean())}

        return train(
            *(method, data, cpus[:devices], epochs),
            **{"model": model, "term": term, "optimizer": optimizer, "seed": seed, "evaluate": evaluate},
            **{"batch_size": 80, "steps_per_dispatch": together, "average_decay": decay},
        )

    before = run(Watched(), DSink(), first, 400, 1, 1, 0.9)
    assert {"loss", "apply"} <= set(traces)
    traces.clear()
    compilations.clear()
    after = run(
        Watched(tau=2.0, temperature=3.0), DSink(2.0, 0.5, 0.5, threshold=0.1), second, 401, 2, 2, 0.8
    )
    assert not traces and not compilations
    assert before.history[-1]["train"]["loss"] != after.history[-1]["train"]["loss"]


@pytest.mark.parametrize("kind", [GeneralizedCrossEntropy, functools.partial(ForwardCorrection, "known")])
def test_another_strength_temperature_or_matrix_compiles_nothing(kind, small_data, cpus):
    """Of what a choice by labels held out goes through."""
    matrices = np.eye(NUM_CLASSES), 0.7 * np.eye(NUM_CLASSES) + 0.3 / NUM_CLASSES

    def predicted(matrix, **numbers):
        facts = make_facts(np.bincount(small_data.labels), 1, matrix)
        trained = train(kind(**numbers), small_data, cpus[:1], 1, facts=facts)
        return trained.logits(small_data.inputs, STANDARDIZATION, cpus[:1])

    before = predicted(matrices[0], tau=1.0)
    compilations.clear()
    warm = predicted(matrices[0], tau=1.0, temperature=4.0)
    other = predicted(matrices[1], tau=0.0, temperature=0.25)
    assert not compilations
    np.testing.assert_allclose(warm, before / 4, rtol=1e-5)
    assert np.isfinite(other).all() and (other != before).any()


def test_what_is_traced_of_a_step_is_traced_once(small_data, cpus):
    """By Chex's own count, over three trainings."""
    model = tiny_model(Watched())
    chex.clear_trace_counter()
    model = model._replace(apply=chex.assert_max_traces(model.apply, n=1))
    for tau in (0.5, 1.0, 2.0):
        train(Watched(tau), small_data, cpus[:1], 1, model=model)
