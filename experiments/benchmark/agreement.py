"""Whether the PyTorch step is ours: loss and gradient of one batch, held against each other."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data.augment import normalize
from dsink_jax.methods import Batch, Context
from experiments.benchmark.workload import BASE, DSINK, Workload


class Agreement(NamedTuple):
    """How far the two are apart, relative to ours.

    Attributes:
      loss: of the batch.
      gradient: of the parameter whose gradient differs most, by its norm.
    """

    loss: float
    gradient: float


def agreement(workload: Workload, batch_size: int, alpha: float = DSINK.alpha) -> Agreement:
    """Compares base loss, Q and D-SINK term of the two implementations, from the same weights on one batch.

    Args:
      workload: its network has a PyTorch twin.
      batch_size: examples.
      alpha: PyTorch's weight of the term.
    """
    # PyTorch is an extra.
    import torch

    from experiments.benchmark import torch_reference

    workload = dataclasses.replace(workload, examples=batch_size)
    data, model = workload.data(), workload.model
    variables = model.init(jax.random.key(0), jnp.zeros((1, *workload.shape)))
    # Scales and offsets other than 1 and 0, so that exchanged ones would show.
    variables = jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables)
    # Small images: with fewer activations none is so near 0 that rounding decides which side of ReLU it is
    # on, which would change the gradient by some thousandths.
    images = normalize(jnp.asarray(data.inputs[:, ::4, ::4]), *workload.standardization)
    batch = Batch(images, data.labels, np.ones(batch_size, bool), *data[2:4])

    @jax.jit
    @jax.value_and_grad
    def ours(params):
        logits, _ = model.apply({**variables, "params": params}, images, train=True)
        base = BASE.loss(logits, batch, (), Context(workload.facts, 0.0, (), None)).values
        return DSINK.combine(base, DSINK.values(logits, batch, None)[0], 0.0).mean()

    loss, gradient = ours(variables["params"])
    trainer = torch_reference.Trainer(workload, alpha)
    torch_reference.copy_weights(variables, trainer.module)
    theirs = trainer.objective(torch.tensor(np.asarray(images)).permute(0, 3, 1, 2), torch.arange(batch_size))
    theirs.backward()
    expected = torch_reference.from_flax(gradient)
    found = {name: parameter.grad.numpy() for name, parameter in trainer.module.named_parameters()}
    if found.keys() != expected.keys():
        raise ValueError(f"The networks differ in {sorted(found.keys() ^ expected.keys())}.")
    apart = [np.linalg.norm(found[name] - own) / np.linalg.norm(own) for name, own in expected.items()]
    return Agreement(abs(theirs.item() / float(loss) - 1), float(max(apart)))
