"""Part `step`: what D-SINK adds to a training step, and where it goes."""

import dataclasses

import jax
import jax.numpy as jnp

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.data.augment import normalize
from dsink_jax.losses.distillation import divergence_from_labels
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, comparison
from experiments.benchmark.timing import alternate
from experiments.benchmark.workload import Stepper, Workload

WORKLOADS = (
    Workload("resnet20", "ResNet-20", 128, 512),
    Workload("preact_resnet18", "PreAct-ResNet-18", 16, 64),
)
QUICK_WORKLOADS = (Workload("resnet8", "ResNet-8", 4, 8),)
SECONDS = 45.0
STEPS = {
    "base step": "none",
    "base step, a second one": "none",  # how far from 1 the ratio of equals is
    "D-SINK, cached auxiliaries": "cached",
    "D-SINK, online auxiliaries": "online",
}
TARGETS = {"D-SINK, cached auxiliaries": "<= 1.05", "D-SINK, online auxiliaries": "<= 1.75"}


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part."""
    rows = []
    for workload in QUICK_WORKLOADS if settings.quick else WORKLOADS:
        steps = {name: Stepper(workload, auxiliaries) for name, auxiliaries in STEPS.items()}
        seconds = 0 if settings.quick else SECONDS
        times = alternate(steps | parts_of_the_extra(workload), rounds=3, seconds=seconds, at_most=40)
        rounds = f"{len(times['base step'])} rounds"
        for name in list(times)[1:]:
            case, target = f"{workload.case}: {name}", TARGETS.get(name, "")
            rows.append(comparison("step", case, times, name, "base step", target, rounds))
        print(f"  {workload.case}: {rounds}", flush=True)
    return rows, []


def parts_of_the_extra(workload: Workload):
    """What the D-SINK step does more than the base step, each alone."""
    data = dataclasses.replace(workload, examples=workload.batch_size).data()
    model = workload.model
    images = normalize(jnp.asarray(data.inputs), *workload.standardization)
    variables = [model.init(jax.random.key(seed), images[:1]) for seed in (1, 2)]
    noise_robust, imbalance_robust = map(jnp.asarray, data[2:4])
    logits = noise_robust + jax.random.normal(jax.random.key(0), noise_robust.shape)
    forwards = jax.jit(lambda variables, images: [model.apply(one, images)[0] for one in variables])
    solver = jax.jit(lambda z, n, r: surrogate_labels(z, n, class_marginal(r)).labels)
    labels = solver(logits, noise_robust, imbalance_robust)
    loss = jax.jit(jax.value_and_grad(lambda logits, labels: divergence_from_labels(logits, labels).mean()))
    return {
        "two auxiliary forwards alone": lambda: jax.block_until_ready(forwards(variables, images)),
        "solver alone": lambda: jax.block_until_ready(solver(logits, noise_robust, imbalance_robust)),
        "loss and gradient alone": lambda: jax.block_until_ready(loss(logits, labels)),
    }
