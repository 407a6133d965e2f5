"""Part `step`: what D-SINK adds to a training step, and where it goes."""

import jax
import jax.numpy as jnp

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.data.augment import normalise
from dsink_jax.losses.distillation import divergence_from_labels
from dsink_jax.models import build_model
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, Target, comparison
from experiments.benchmark.timing import alternate
from experiments.benchmark.workload import (
    BASE,
    DSINK,
    NUM_CLASSES,
    PREPROCESSING,
    Stepper,
    Workload,
    make_data,
)

WORKLOADS = (
    Workload("resnet20", "ResNet-20", 128, 512),
    Workload("preact_resnet18", "PreAct-ResNet-18", 16, 64),
)
QUICK_WORKLOADS = (Workload("resnet8", "ResNet-8", 4, 8),)
SECONDS = 45.0
_CONTROL = "base step, a second one"  # how far from 1 the ratio of equals is
_CACHED, _ONLINE = "D-SINK, cached auxiliaries", "D-SINK, online auxiliaries"
_FORWARDS, _SOLVER, _LOSS = "two auxiliary forwards alone", "solver alone", "loss and gradient alone"


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part."""
    rows = []
    for workload in QUICK_WORKLOADS if settings.quick else WORKLOADS:
        devices = jax.local_devices()[:1]
        contestants = {
            **{
                name: Stepper(workload, BASE, auxiliaries="none", devices=devices)
                for name in ("base step", _CONTROL)
            },
            _CACHED: Stepper(workload, DSINK, auxiliaries="cached", devices=devices),
            _ONLINE: Stepper(workload, DSINK, auxiliaries="online", devices=devices),
            **parts_of_the_extra(workload),
        }
        times = alternate(contestants, rounds=3, seconds=0 if settings.quick else SECONDS, at_most=40)
        targets = {_CACHED: Target("<=", 1.05), _ONLINE: Target("<=", 1.75)}
        rows += [
            comparison(
                "step",
                f"{workload.case}: {name}",
                times,
                name,
                "base step",
                target=targets.get(name),
                note=f"{len(times[name])} rounds",
            )
            for name in contestants
            if name != "base step"
        ]
        print(f"  {workload.case}: {len(times['base step'])} rounds", flush=True)
    return rows, []


def parts_of_the_extra(workload: Workload):
    """What the D-SINK step does more than the base step, each alone."""
    data = make_data(workload.batch_size)
    model = build_model(workload.model, NUM_CLASSES)
    images = normalise(jnp.asarray(data.images), PREPROCESSING.mean, PREPROCESSING.std)
    variables = [model.init(jax.random.key(seed), images[:1]) for seed in (1, 2)]
    noise_robust, imbalance_robust = map(
        jnp.asarray, (data.noise_robust_logits, data.imbalance_robust_logits)
    )
    logits = noise_robust + jax.random.normal(jax.random.key(0), noise_robust.shape)

    @jax.jit
    def forwards(variables, images):
        return [model.apply(one, images, False)[0] for one in variables]

    @jax.jit
    def solver(logits, noise_robust, imbalance_robust):
        return surrogate_labels(logits, noise_robust, class_marginal(imbalance_robust)).labels

    labels = solver(logits, noise_robust, imbalance_robust)
    loss = jax.jit(jax.value_and_grad(lambda logits, labels: divergence_from_labels(logits, labels).mean()))
    return {
        _FORWARDS: lambda: jax.block_until_ready(forwards(variables, images)),
        _SOLVER: lambda: jax.block_until_ready(solver(logits, noise_robust, imbalance_robust)),
        _LOSS: lambda: jax.block_until_ready(loss(logits, labels)),
    }
