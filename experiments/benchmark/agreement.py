"""Whether the PyTorch step is ours: loss and gradient of one batch, held against each other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data.augment import normalise
from dsink_jax.methods.base import Batch
from dsink_jax.models import build_model
from experiments.benchmark.workload import (
    ALPHA,
    BLOCKS,
    DSINK,
    NUM_CLASSES,
    OPTIMIZER,
    PREPROCESSING,
    make_data,
)


class Agreement(NamedTuple):
    """How far the two are apart, relative to ours.

    Attributes:
      loss: of the batch.
      gradient: of the parameter whose gradient differs most, by its norm.
    """

    loss: float
    gradient: float


def agreement(model_name: str, batch_size: int) -> Agreement:
    """Compares base loss, Q and D-SINK term of the two implementations, from the same weights on one batch.

    Args:
      model_name: a network of `BLOCKS`.
      batch_size: examples.
    """
    # PyTorch is an extra.
    import torch

    from experiments.benchmark import torch_reference

    data, model = make_data(batch_size), build_model(model_name, NUM_CLASSES)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    # Scales and offsets other than 1 and 0, so that exchanged ones would show.
    variables = jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables)
    # Small images: with fewer activations none is so near 0 that rounding decides which side of ReLU it is
    # on, which would change the gradient by some thousandths.
    images = normalise(jnp.asarray(data.images[:, ::4, ::4]), PREPROCESSING.mean, PREPROCESSING.std)
    batch = Batch(
        images,
        jnp.asarray(data.labels),
        jnp.ones(batch_size, bool),
        jnp.asarray(data.noise_robust_logits),
        jnp.asarray(data.imbalance_robust_logits),
    )

    @jax.jit
    @jax.value_and_grad
    def ours(params):
        logits, _ = model.apply({**variables, "params": params}, images, True)
        return DSINK.loss(logits, batch, (), epoch=0.0, axis_name=None).values.mean()

    loss, gradient = ours(variables["params"])

    module = torch_reference.CifarResNet(NUM_CLASSES, BLOCKS[model_name])
    torch_reference.copy_weights(variables, module)
    trainer = torch_reference.Trainer(module, data, PREPROCESSING, OPTIMIZER, ALPHA, 100)
    theirs = trainer.objective(torch.tensor(np.asarray(images)).permute(0, 3, 1, 2), torch.arange(batch_size))
    theirs.backward()
    expected = torch_reference.from_flax(gradient)
    found = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    if found.keys() != expected.keys():
        raise ValueError(f"The networks differ in {sorted(found.keys() ^ expected.keys())}.")
    apart = [np.linalg.norm(found[name] - own) / np.linalg.norm(own) for name, own in expected.items()]
    return Agreement(abs(theirs.item() / float(loss) - 1), float(max(apart)))
