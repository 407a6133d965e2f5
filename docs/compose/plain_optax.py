"""D-SINK in a plain JAX and Optax loop. Run: python docs/compose/plain_optax.py.

The auxiliary models are done when the target starts and nothing is augmented, so their logits are worked out
once and looked up by position.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import corrupted_digits
from dsink_jax import dsink_loss, losses

EPOCHS, ALPHA = 100, 10.0
SCHEDULE = optax.cosine_decay_schedule(0.1, decay_steps=4 * EPOCHS)
OPTIMIZER = optax.chain(optax.add_decayed_weights(2e-3), optax.sgd(SCHEDULE, momentum=0.9))


def init(key):
    first, second = jax.random.split(key)
    normal = jax.nn.initializers.he_normal()
    return {
        "hidden": {"kernel": normal(first, (64, 128)), "bias": jnp.zeros(128)},
        "output": {"kernel": normal(second, (128, 10)), "bias": jnp.zeros(10)},
    }


def apply(parameters, features):
    hidden, output = parameters["hidden"], parameters["output"]
    return jax.nn.relu(features @ hidden["kernel"] + hidden["bias"]) @ output["kernel"] + output["bias"]


def cross_entropy(logits, batch):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


def imbalance_robust(logits, batch):
    return losses.logit_adjusted_cross_entropy(logits, batch["labels"], batch["class_prior"])


def noise_robust(logits, batch):
    return losses.generalized_cross_entropy(logits, batch["labels"])


def target(logits, batch):
    distilled = dsink_loss(logits, noise_robust_logits=batch["f_N"], imbalance_robust_logits=batch["f_L"])
    # Scaled so that a learning rate made for one loss still fits.
    return losses.add_distillation(cross_entropy(logits, batch), distilled, ALPHA)


def objective(parameters, loss, batch):
    return loss(apply(parameters, batch["features"]), batch).mean()


@functools.partial(jax.jit, static_argnames="loss")
def step(parameters, state, loss, batch):
    gradient = jax.grad(objective)(parameters, loss, batch)
    updates, state = OPTIMIZER.update(gradient, state, parameters)
    return optax.apply_updates(parameters, updates), state


def train(key, loss, examples, class_prior):
    """Trains from a new start; `examples` are arrays with a row for each training example."""
    parameters = init(key)
    state = OPTIMIZER.init(parameters)
    for index in corrupted_digits.batches(len(examples["labels"]), EPOCHS):
        batch = {name: rows[index] for name, rows in examples.items()} | {"class_prior": class_prior}
        parameters, state = step(parameters, state, loss, batch)
    return parameters


def main():
    digits = corrupted_digits.load()
    examples = {"features": digits.features, "labels": digits.labels}
    key_L, key_N, key = jax.random.split(jax.random.key(0), 3)
    f_L = train(key_L, imbalance_robust, examples, digits.class_prior)
    f_N = train(key_N, noise_robust, examples, digits.class_prior)
    examples |= {"f_N": apply(f_N, digits.features), "f_L": apply(f_L, digits.features)}
    plain = train(key, cross_entropy, examples, digits.class_prior)
    f = train(key, target, examples, digits.class_prior)
    accuracies = {}
    for name, parameters in {"cross-entropy": plain, "f_L": f_L, "f_N": f_N, "D-SINK": f}.items():
        correct = apply(parameters, digits.test_features).argmax(-1) == digits.test_labels
        accuracies[name] = float(correct.mean())
        print(f"{name:14} {accuracies[name]:.1%}")
    return accuracies


if __name__ == "__main__":
    main()
