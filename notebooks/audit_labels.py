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
# # Audit your labels
#
# Which labels of a data set are wrong, what they should be, and how sure that is. The data: scans of digits,
# ten times as many zeros as nines, and 40 % of the labels mistaken for those of one other class. We know
# which, the audit does not.

# %%
import matplotlib.pyplot as plt
import numpy as np

from dsink_jax import audit, data

digits = data.load("digits")
corruption = data.corrupt(
    digits.train.labels, 10, imbalance_ratio=10, noise="asymmetric", noise_rate=0.4, data_seed=0
)
images, given, true = digits.train.images[corruption.index], corruption.noisy_labels, corruption.clean_labels
features = images.reshape(len(images), -1)
print(f"{len(given)} labels, {np.mean(given != true):.0%} wrong")

# %% [markdown]
# ## Predictions of models that have not seen the example
#
# A model that has seen a wrong label may have learned it by heart. So the data is split into five parts, and
# each is judged by an f_N (robust to wrong labels) and an f_L (robust to rare classes) that were trained on
# the others. For features of a frozen encoder a linear model does; here the 64 pixels are the features. How
# both are trained is chosen by held-out labels first, and a second f_N, by ELR, joins them.

# %%
logits = audit.out_of_sample_logits(features, given, num_classes=10)
print(f"f_N: {np.mean(logits.noise_robust.argmax(1) == true):.0%} of the true classes")
print(f"f_L: {np.mean(logits.imbalance_robust.argmax(1) == true):.0%} of the true classes")

# %% [markdown]
# ## From predictions to wrong labels
#
# What these models say together is held against the labels: that tells the shares of the true classes, and
# how often each class is mistaken for which. D-SINK's transport moves the predictions to these shares, and
# Bayes' rule then takes the given label into account.

# %%
models = logits.noise_robust, logits.imbalance_robust, logits.others
found = audit.find_label_errors(given, *models, judged=logits.judged)
wrong, flagged = given != true, found.is_wrong
print(f"{flagged.sum()} labels are probably wrong; truly wrong are {wrong.sum()}")
print(f"{np.mean(wrong[flagged]):.0%} of those flagged are wrong")
print(f"{np.mean(flagged[wrong]):.0%} of those wrong are flagged")
print(f"right labels: {np.mean(~wrong):.0%} as given, {np.mean(found.proposed == true):.0%} as proposed")

# %% [markdown]
# How the classes are mistaken for one another, as estimated, and as it truly was drawn:

# %%
drawn = np.array([np.bincount(given[true == label], minlength=10) for label in range(10)])
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
for ax, matrix, title in zip(
    axes, (found.noise, drawn / drawn.sum(1, keepdims=True)), ("estimated", "true"), strict=True
):
    ax.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
    ax.set(title=f"P(given | true), {title}", xlabel="given label", xticks=range(10), yticks=range(10))
axes[0].set_ylabel("true class")
plt.show()

# %% [markdown]
# ## The most suspicious labels
#
# The most probably wrong labels first. A green title: the proposed label is the true one.

# %%
figure, axes = plt.subplots(2, 8, figsize=(10, 3.4), layout="constrained")
for ax, i in zip(axes.flat, found.ranking, strict=False):
    ax.imshow(images[i, ..., 0], cmap="gray_r")
    colour = "#00664a" if found.proposed[i] == true[i] else "#a34700"
    ax.set_title(f"{given[i]} → {found.proposed[i]}  ({found.confidence[i]:.0%})", fontsize=8, color=colour)
    ax.axis("off")
plt.show()

# %% [markdown]
# ## Is a probability one?
#
# Of the labels said to be wrong with a probability of about 0.8, about eight of ten should be.

# %%
edges = np.array([0.0, 0.05, 0.3, 0.7, 0.95, 1.0])
place = np.clip(np.digitize(found.wrong_probability, edges) - 1, 0, len(edges) - 2)
print("said          truly   labels")
for k in range(len(edges) - 1):
    here = place == k
    if here.any():
        print(f"{edges[k]:.2f} - {edges[k + 1]:.2f}   {np.mean(wrong[here]):5.0%}   {here.sum():6d}")

# %% [markdown]
# ## The same as one command
#
# `python -m dsink_jax.audit data.csv` reads a table with a column `label` and features in the others, an
# `.npz` file, or a folder of images for each class; it writes all labels, the most suspicious first, to
# `labels.csv`, and a gallery to `labels.html`. With `--fail-above 0.05` it ends with code 1 if more labels
# are wrong.
