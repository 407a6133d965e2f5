"""D-SINK in a step over all devices. Run: python docs/compose/sharded_step.py.

Two mappings of one step: by `shard_map` each device sees its rows and the sums over devices are written out;
by `jit` over sharded arrays the code sees the whole batch and the compiler writes the sums.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import corrupted_digits
from dsink_jax import dsink_loss, losses

EPOCHS, ALPHA, BATCH = 100, 10.0, 160  # 544 is not a multiple of 160: each epoch's last batch is filled up
SCHEDULE = optax.cosine_decay_schedule(0.1, decay_steps=4 * EPOCHS)
OPTIMIZER = optax.chain(optax.add_decayed_weights(2e-3), optax.sgd(SCHEDULE, momentum=0.9))
SPLIT, WHOLE = PartitionSpec("batch"), PartitionSpec()


def init(key):
    first, second = jax.random.split(key)
    normal = jax.nn.initializers.he_normal()
    return {"hidden": normal(first, (64, 128)), "bias": jnp.zeros(128), "output": normal(second, (128, 10))}


def apply(parameters, features):
    return jax.nn.relu(features @ parameters["hidden"] + parameters["bias"]) @ parameters["output"]


def cross_entropy(logits, batch, axis_name):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


def noise_robust(logits, batch, axis_name):
    return losses.generalized_cross_entropy(logits, batch["labels"])


def target(logits, batch, axis_name):
    # With an axis name, one problem over the batch of all devices. Rows that only fill up take no part.
    distilled = dsink_loss(
        logits,
        noise_robust_logits=batch["f_N"],
        imbalance_robust_logits=batch["f_L"],
        where=batch["where"],
        axis_name=axis_name,
    )
    return losses.add_distillation(cross_entropy(logits, batch, axis_name), distilled, ALPHA)


def step(loss, axis_name, parameters, state, batch):
    """One step on the rows of one device, or without an axis name on all of them."""

    def summed(parameters):
        values = loss(apply(parameters, batch["features"]), batch, axis_name)
        return jnp.where(batch["where"], values, 0.0).sum()

    total, gradient = jax.value_and_grad(summed)(parameters)
    sums = (total, gradient, batch["where"].sum())
    total, gradient, count = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    gradient = jax.tree.map(lambda leaf: leaf / count, gradient)
    updates, state = OPTIMIZER.update(gradient, state, parameters)
    return optax.apply_updates(parameters, updates), state, total / count


def mapped_step(loss, mesh, by):
    """The step over all devices of the mesh, by "shard_map" or by "jit"."""
    if by == "jit":
        return jax.jit(functools.partial(step, loss, None))
    # OTT's loops carry constants that the check of replicated values refuses.
    specs = {"in_specs": (WHOLE, WHOLE, SPLIT), "out_specs": WHOLE, "check_vma": False}
    return jax.jit(jax.shard_map(functools.partial(step, loss, "batch"), mesh=mesh, **specs))


def train(key, loss, examples, mesh, by="shard_map"):
    over_devices = mapped_step(loss, mesh, by)
    parameters = jax.device_put(init(key), NamedSharding(mesh, WHOLE))
    state = OPTIMIZER.init(parameters)
    for index in corrupted_digits.batches(len(examples["labels"]), EPOCHS, BATCH):
        full = np.resize(index, BATCH)
        batch = {name: rows[full] for name, rows in examples.items()}
        batch["where"] = np.arange(BATCH) < len(index)
        batch = jax.device_put(batch, NamedSharding(mesh, SPLIT))
        parameters, state, loss_value = over_devices(parameters, state, batch)
        loss_value.block_until_ready()  # virtual CPU devices must not have too many steps under way
    return jax.device_get(parameters)


def main():
    mesh = jax.make_mesh((jax.device_count(),), ("batch",))
    digits = corrupted_digits.load()

    def imbalance_robust(logits, batch, axis_name):
        return losses.logit_adjusted_cross_entropy(logits, batch["labels"], digits.class_prior)

    examples = {"features": digits.features, "labels": digits.labels}
    key_L, key_N, key = jax.random.split(jax.random.key(0), 3)
    f_L = train(key_L, imbalance_robust, examples, mesh)
    f_N = train(key_N, noise_robust, examples, mesh, by="jit")
    logits = {"f_N": apply(f_N, digits.features), "f_L": apply(f_L, digits.features)}
    examples |= jax.device_get(logits)
    plain = train(key, cross_entropy, examples, mesh)
    f = train(key, target, examples, mesh)
    accuracies = {}
    for name, parameters in {"cross-entropy": plain, "f_L": f_L, "f_N": f_N, "D-SINK": f}.items():
        correct = apply(parameters, digits.test_features).argmax(-1) == digits.test_labels
        accuracies[name] = float(correct.mean())
        print(f"{name:14} {accuracies[name]:.1%}")
    print(jax.device_count(), "devices")
    return accuracies


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)  # makes a CPU look like 8 devices; others are not touched
    main()
