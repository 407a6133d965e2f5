"""D-SINK with Flax NNX. Run: python docs/compose/nnx_module.py.

The auxiliary models are modules that the step takes beside the one it trains; only the first is changed.
"""

import functools

import optax
from flax import nnx

import corrupted_digits
from dsink_jax import dsink_loss, losses

EPOCHS, ALPHA = 100, 10.0
SCHEDULE = optax.cosine_decay_schedule(0.1, decay_steps=4 * EPOCHS)
OPTIMIZER = optax.chain(optax.add_decayed_weights(2e-3), optax.sgd(SCHEDULE, momentum=0.9))


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.output = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, features):
        return self.output(nnx.relu(self.hidden(features)))


def cross_entropy(logits, batch, auxiliaries):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


def imbalance_robust(logits, batch, auxiliaries):
    return losses.logit_adjusted_cross_entropy(logits, batch["labels"], batch["class_prior"])


def noise_robust(logits, batch, auxiliaries):
    return losses.generalized_cross_entropy(logits, batch["labels"])


def target(logits, batch, auxiliaries):
    f_N, f_L = (model(batch["features"]) for model in auxiliaries)
    base = cross_entropy(logits, batch, auxiliaries)
    distilled = dsink_loss(logits, noise_robust_logits=f_N, imbalance_robust_logits=f_L)
    # Scaled so that a learning rate made for one loss still fits.
    return losses.add_distillation(base, distilled, ALPHA)


def objective(model, loss, batch, auxiliaries=()):
    return loss(model(batch["features"]), batch, auxiliaries).mean()


@functools.partial(nnx.jit, static_argnames="loss")
def step(model, optimizer, loss, batch, auxiliaries):
    optimizer.update(model, nnx.grad(objective)(model, loss, batch, auxiliaries))


def train(seed, loss, digits, auxiliaries=()):
    model = Network(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, OPTIMIZER, wrt=nnx.Param)
    for index in corrupted_digits.batches(len(digits.labels), EPOCHS):
        batch = {
            "features": digits.features[index],
            "labels": digits.labels[index],
            "class_prior": digits.class_prior,
        }
        step(model, optimizer, loss, batch, auxiliaries)
    return model


def main():
    digits = corrupted_digits.load()
    f_L = train(0, imbalance_robust, digits)
    f_N = train(1, noise_robust, digits)
    plain = train(2, cross_entropy, digits)
    f = train(2, target, digits, (f_N, f_L))
    accuracies = {}
    for name, model in {"cross-entropy": plain, "f_L": f_L, "f_N": f_N, "D-SINK": f}.items():
        correct = model(digits.test_features).argmax(-1) == digits.test_labels
        accuracies[name] = float(correct.mean())
        print(f"{name:14} {accuracies[name]:.1%}")
    return accuracies


if __name__ == "__main__":
    main()
