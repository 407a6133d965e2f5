"""D-SINK with Flax Linen and its TrainState. Run: python docs/compose/linen_train_state.py.

The step runs the auxiliary models itself, on the batch as it is: what to do where images are augmented.
"""

import functools

import jax
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import corrupted_digits
from dsink_jax import dsink_loss, losses

EPOCHS, ALPHA = 100, 10.0
SCHEDULE = optax.cosine_decay_schedule(0.1, decay_steps=4 * EPOCHS)
OPTIMIZER = optax.chain(optax.add_decayed_weights(2e-3), optax.sgd(SCHEDULE, momentum=0.9))


class Network(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, features):
        return nn.Dense(10)(nn.relu(nn.Dense(128)(features)))


def cross_entropy(logits, batch, auxiliaries):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


def imbalance_robust(logits, batch, auxiliaries):
    return losses.logit_adjusted_cross_entropy(logits, batch["labels"], batch["class_prior"])


def noise_robust(logits, batch, auxiliaries):
    return losses.generalized_cross_entropy(logits, batch["labels"])


def target(logits, batch, auxiliaries):
    f_N, f_L = (Network().apply(variables, batch["features"]) for variables in auxiliaries)
    base = cross_entropy(logits, batch, auxiliaries)
    distilled = dsink_loss(logits, noise_robust_logits=f_N, imbalance_robust_logits=f_L)
    # Scaled so that a learning rate made for one loss still fits.
    return losses.add_distillation(base, distilled, ALPHA)


def objective(params, loss, batch, auxiliaries=()):
    logits = Network().apply({"params": params}, batch["features"])
    return loss(logits, batch, auxiliaries).mean()


@functools.partial(jax.jit, static_argnames="loss")
def step(state, loss, batch, auxiliaries):
    gradient = jax.grad(objective)(state.params, loss, batch, auxiliaries)
    return state.apply_gradients(grads=gradient)


def train(key, loss, digits, auxiliaries=()):
    variables = Network().init(key, digits.features[:1])
    state = TrainState.create(apply_fn=Network().apply, params=variables["params"], tx=OPTIMIZER)
    for index in corrupted_digits.batches(len(digits.labels), EPOCHS):
        batch = {
            "features": digits.features[index],
            "labels": digits.labels[index],
            "class_prior": digits.class_prior,
        }
        state = step(state, loss, batch, auxiliaries)
    return {"params": state.params}


def main():
    digits = corrupted_digits.load()
    key_L, key_N, key = jax.random.split(jax.random.key(0), 3)
    f_L = train(key_L, imbalance_robust, digits)
    f_N = train(key_N, noise_robust, digits)
    plain = train(key, cross_entropy, digits)
    f = train(key, target, digits, (f_N, f_L))
    accuracies = {}
    for name, variables in {"cross-entropy": plain, "f_L": f_L, "f_N": f_N, "D-SINK": f}.items():
        correct = Network().apply(variables, digits.test_features).argmax(-1) == digits.test_labels
        accuracies[name] = float(correct.mean())
        print(f"{name:14} {accuracies[name]:.1%}")
    return accuracies


if __name__ == "__main__":
    main()
