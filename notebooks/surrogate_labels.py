# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Surrogate labels by eye
#
# Eight images of three classes. The noise-robust model `f_N` knows each image but has lost the rarest class;
# the imbalance-robust model `f_L` knows how often each class occurs. Q takes the first sample by sample, the
# second as a whole.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import dsink_jax

np.set_printoptions(precision=2, suppress=True)

noise_robust = jnp.log(
    jnp.array(
        [
            [0.90, 0.08, 0.02],
            [0.90, 0.08, 0.02],
            [0.85, 0.10, 0.05],
            [0.80, 0.15, 0.05],
            [0.10, 0.85, 0.05],
            [0.10, 0.80, 0.10],
            [0.20, 0.45, 0.35],  # probably the rarest class, but f_N does not dare to say so
            [0.25, 0.40, 0.35],
        ]
    )
)
target = jnp.zeros((8, 3))  # a student that knows nothing yet
marginal = jnp.array([0.5, 0.25, 0.25])  # mean prediction of f_L

# %%
allocation = dsink_jax.surrogate_labels(target, noise_robust, marginal)
print(np.asarray(allocation.labels))
print("class marginal of Q:", np.asarray(allocation.labels.mean(0)), "asked for:", np.asarray(marginal))
print("iterations:", int(allocation.iterations), "error:", float(allocation.marginal_error))
assert bool(allocation.converged)

# %% [markdown]
# The last two rows now name the rarest class: not because any one image says so, but because a quarter of
# the batch has to belong to it, and these images cost least.

# %%
assert allocation.labels[6:].argmax(-1).tolist() == [2, 2]
assert noise_robust[6:].argmax(-1).tolist() == [1, 1]

# %% [markdown]
# For the gradient Q is a constant, so the student is pulled from its prediction to Q:

# %%
imbalance_robust = jnp.broadcast_to(jnp.log(marginal), (8, 3))
gradient = jax.grad(lambda z: dsink_jax.dsink_loss(z, noise_robust, imbalance_robust).sum())(target)
np.testing.assert_allclose(gradient, jax.nn.softmax(target) - allocation.labels, atol=1e-5)
print(np.asarray(gradient))
