"""D-SINK with Equinox, and with a loss of one's own. Run: python docs/compose/equinox_module.py.

The step asks for the surrogate labels Q and gives them to Optax's cross-entropy, mixed with the observed
labels: one loss of ordinary size, with a learning rate made for it.
"""

import sys

import jax
import optax

import corrupted_digits
from dsink_jax import class_marginal, losses, surrogate_labels

try:
    import equinox as eqx
except ImportError:
    sys.stderr.write("Equinox is not installed: pip install equinox\n")
    sys.exit(2)

EPOCHS, SHARE = 100, 0.9
SCHEDULE = optax.cosine_decay_schedule(0.1, decay_steps=4 * EPOCHS)
OPTIMIZER = optax.chain(optax.add_decayed_weights(2e-3), optax.sgd(SCHEDULE, momentum=0.9))


def network(key):
    """A model of one example, as Equinox has them; `jax.vmap` gives logits `[N, 10]`."""
    return eqx.nn.MLP(64, 10, width_size=128, depth=1, key=key)


def cross_entropy(logits, batch, auxiliaries):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


def imbalance_robust(logits, batch, auxiliaries):
    return losses.logit_adjusted_cross_entropy(logits, batch["labels"], batch["class_prior"])


def noise_robust(logits, batch, auxiliaries):
    return losses.generalized_cross_entropy(logits, batch["labels"])


def target(logits, batch, auxiliaries):
    f_N, f_L = (jax.vmap(model)(batch["features"]) for model in auxiliaries)
    allocation = surrogate_labels(logits, noise_robust_logits=f_N, class_marginal=class_marginal(f_L))
    observed = jax.nn.one_hot(batch["labels"], 10)
    mixed = SHARE * allocation.labels + (1 - SHARE) * observed
    return optax.losses.softmax_cross_entropy(logits, mixed)


def objective(model, loss, batch, auxiliaries=()):
    return loss(jax.vmap(model)(batch["features"]), batch, auxiliaries).mean()


@eqx.filter_jit
def step(model, state, loss, batch, auxiliaries):
    gradient = eqx.filter_grad(objective)(model, loss, batch, auxiliaries)
    updates, state = OPTIMIZER.update(gradient, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state


def train(key, loss, digits, auxiliaries=()):
    model = network(key)
    state = OPTIMIZER.init(eqx.filter(model, eqx.is_array))
    for index in corrupted_digits.batches(len(digits.labels), EPOCHS):
        batch = {
            "features": digits.features[index],
            "labels": digits.labels[index],
            "class_prior": digits.class_prior,
        }
        model, state = step(model, state, loss, batch, auxiliaries)
    return model


def main():
    digits = corrupted_digits.load()
    key_L, key_N, key = jax.random.split(jax.random.key(0), 3)
    f_L = train(key_L, imbalance_robust, digits)
    f_N = train(key_N, noise_robust, digits)
    plain = train(key, cross_entropy, digits)
    f = train(key, target, digits, (f_N, f_L))
    accuracies = {}
    for name, model in {"cross-entropy": plain, "f_L": f_L, "f_N": f_N, "D-SINK": f}.items():
        correct = jax.vmap(model)(digits.test_features).argmax(-1) == digits.test_labels
        accuracies[name] = float(correct.mean())
        print(f"{name:14} {accuracies[name]:.1%}")
    return accuracies


if __name__ == "__main__":
    main()
