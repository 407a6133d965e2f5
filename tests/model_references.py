"""Networks evaluated in NumPy, layer by layer, and cheap variables for them."""

import jax
import jax.numpy as jnp
import numpy as np

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def shapes(model, images=IMAGES):
    """Shapes and types of the variables, without computing them."""
    return jax.eval_shape(model.init, jax.random.key(0), images)


def filled(model, images, seed=0):
    """Variables of the right shapes with numbers of our own: cheaper to come by than `init` to compile."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(leaf.dtype)
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 1.5)}.get(name, (-0.5, 0.5))
        return rng.uniform(low, high, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes(model, images))


def some_images(count=16, size=8, channels=3):
    return np.random.default_rng(1).normal(size=(count, size, size, channels)).astype(np.float32)


def num_parameters(model, images=IMAGES):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, images)["params"]))


class InNumPy:
    """The layers of a network in evaluation mode, in float64, taken in the order in which they are called."""

    def __init__(self, variables):
        self.params, self.moments = variables["params"], variables["batch_stats"]
        self.convolutions = self.norms = 0

    def conv(self, x, stride=1):
        kernel = np.asarray(self.params[f"Conv_{self.convolutions}"]["kernel"], np.float64)
        self.convolutions += 1
        size, pad = len(kernel), len(kernel) // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        rows, columns = (x.shape[i] - size + 1 for i in (1, 2))
        return sum(
            x[:, i : i + rows : stride, j : j + columns : stride] @ kernel[i, j]
            for i in range(size)
            for j in range(size)
        )

    def norm(self, x):
        name = f"BatchNorm_{self.norms}"
        self.norms += 1
        scale, mean, var = self.params[name]["scale"], self.moments[name]["mean"], self.moments[name]["var"]
        return (x - mean) / np.sqrt(var.astype(np.float64) + 1e-5) * scale + self.params[name]["bias"]

    def norm_relu(self, x):
        return np.maximum(self.norm(x), 0)

    def linear(self, x):
        """Average pool and linear layer, after which every layer must have had its turn."""
        kinds = [name.split("_")[0] for name in self.params]
        assert (self.convolutions, self.norms) == (kinds.count("Conv"), kinds.count("BatchNorm"))
        return x.mean((1, 2)) @ self.params["classifier"]["kernel"] + self.params["classifier"]["bias"]


def option_a(x, features):
    """Every other pixel, and zeros for the new channels on both sides."""
    extra = features - x.shape[-1]
    return np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


def assert_evaluates_to(expected, model, variables, images):
    logits, _ = jax.jit(model.apply, static_argnames="train")(variables, images, train=False)
    size = np.abs(expected).max()
    np.testing.assert_allclose(logits / size, expected / size, atol=1e-4)
