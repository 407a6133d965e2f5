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
# Eight images of three classes. Somebody has labelled them, three times wrongly. The noise-robust model
# `f_N` knows each image but has lost the rarest class; the imbalance-robust model `f_L` knows how often
# each class occurs. Q takes the first sample by sample, the second as a whole.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import dsink_jax

np.set_printoptions(precision=2, suppress=True)

given_labels = np.array([0, 0, 1, 0, 1, 0, 2, 1])  # the third, the sixth and the last are wrong
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
allocation = dsink_jax.surrogate_labels(target, noise_robust_logits=noise_robust, class_marginal=marginal)
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
# ## Before and after
#
# Without `f_L`'s condition Q would be what `f_N` and the student agree on, the normalised square root of
# their product. The condition multiplies its columns until their means are right, and normalises each row
# again.

# %%
before = jax.nn.softmax((noise_robust + target) / 2)
pictures = {
    "given label": jax.nn.one_hot(given_labels, 3),
    "f_N": jax.nn.softmax(noise_robust),
    "Q before": before,
    "Q after": allocation.labels,
}
figure, panels = plt.subplots(1, 4, figsize=(8, 3.6), sharey=True)
for panel, (name, rows) in zip(panels, pictures.items(), strict=True):
    panel.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, c), value in np.ndenumerate(np.asarray(rows)):
        panel.text(c, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    means = " ".join(f"{mean:.2f}" for mean in rows.mean(0))
    panel.set(title=name, xlabel=f"mean\n{means}", xticks=range(3), yticks=range(8))
panels[0].set_ylabel("image")
figure.suptitle("f_L's class marginal: " + " ".join(f"{share:.2f}" for share in marginal))
figure.tight_layout()
plt.show()

# %% [markdown]
# What is left of the given labels is up to the base loss: Q has never seen them. It contradicts the wrong
# ones.

# %%
disputed = np.flatnonzero(np.asarray(allocation.labels).argmax(-1) != given_labels)
print("images whose given label Q contradicts:", disputed)
assert disputed.tolist() == [2, 5, 7]

# %% [markdown]
# ## Iterations
#
# Sinkhorn's iterations fit the columns and the rows in turn. `marginal_error` is what is left after the last
# one: the sum over the classes of |mean of Q - marginal|. The solver looks at it every 10 iterations, so we
# stop it after 10, 20, 30, ... and let it tell its own course. Random models of 128 images and 10 classes:
# the surer they are (the larger their logits), the longer it takes.


# %%
def error_after(iterations, logits, noise_robust_logits, class_marginal):
    stopped = dsink_jax.surrogate_labels(
        logits, noise_robust_logits, class_marginal, max_iterations=iterations, threshold=1e-9
    )
    assert int(stopped.iterations) == iterations
    return float(stopped.marginal_error)


course = range(10, 101, 10)
figure, panel = plt.subplots(figsize=(6, 3))
for scale in (3, 5, 8, 12):
    f, noise, imbalance = scale * jax.random.normal(jax.random.key(0), (3, 128, 10))
    problem = f, noise, dsink_jax.class_marginal(imbalance)
    errors = [error_after(k, *problem) for k in course]
    panel.semilogy(course, errors, "o-", markersize=4, label=f"logits of standard deviation {scale}")
    solved = dsink_jax.surrogate_labels(*problem)
    print(f"{scale:2}: stops after {int(solved.iterations)}, error {float(solved.marginal_error):.1e}")
    assert bool(solved.converged)
    assert float(solved.marginal_error) < 1e-6 < errors[0]
panel.axhline(1e-6, color="grey", linestyle=":", label="default threshold")
panel.set(xlabel="iterations", ylabel="error of the class marginal")
panel.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What the student learns from it
#
# For the gradient Q is a constant, so the student is pulled from its prediction to Q:

# %%
imbalance_robust = jnp.broadcast_to(jnp.log(marginal), (8, 3))
gradient = jax.grad(
    lambda z: dsink_jax.dsink_loss(
        z, noise_robust_logits=noise_robust, imbalance_robust_logits=imbalance_robust
    ).sum()
)(target)
np.testing.assert_allclose(gradient, jax.nn.softmax(target) - allocation.labels, atol=1e-5)
print(np.asarray(gradient))

# %% [markdown]
# ## Several labels an image
#
# An image may show a dog and a ball, or neither. Then every label has a sigmoid of its own and is a problem
# of its own: Q has to have each as often as f_L gives it, and `q = sigmoid((z_N + z) / 2 + b)` with one
# number `b` for each label. Here f_N is lukewarm about the second label, which f_L finds on half of the
# images.

# %%
of_each = jnp.array([[4.0, -1.0], [3.0, -0.5], [-4.0, -3.0], [-3.0, -0.2]])  # logits of f_N: dog, ball
several = dsink_jax.multilabel_surrogate_labels(jnp.zeros((4, 2)), of_each, jnp.array([0.5, 0.5]))
print("f_N:\n", np.asarray(jax.nn.sigmoid(of_each)))
print("Q:\n", np.asarray(several.labels))
np.testing.assert_allclose(several.labels.mean(0), 0.5, atol=1e-5)
assert (several.labels[:, 1] > jax.nn.sigmoid(of_each[:, 1])).all()

# %% [markdown]
# ## Images of no class
#
# Two of these six images show none of the three classes. Nothing in their labels says so, but no class has
# a high logit for them: their energy is low. With the share of the images that are of a class, the transport
# sends them to "none of these" first; `known` is what is left for the classes.

# %%
classes = jnp.array([[6.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 6.0], [5.0, 1.0, 0.0]])
unfamiliar = jnp.array([[0.6, 0.5, 0.2], [0.1, 0.4, 0.3]])
logits = jnp.concatenate([classes, unfamiliar])
masses = dsink_jax.open_set_class_marginal(logits, logits, logits, known_share=4 / 6)
opened = dsink_jax.open_set_surrogate_labels(logits, logits, masses, known_share=4 / 6)
print("known:", np.asarray(opened.known))
assert opened.known[:4].min() > 0.8 > 0.2 > opened.known[4:].max()
