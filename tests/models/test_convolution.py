"""The convolution in parts: the numbers of a whole one, by every kind of differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dsink_jax.models.convolution import convolve, part_size

OPTIONS = dict(window_strides=(2, 2), padding=[(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(batch_size=37):
    images, kernel = jax.random.key(0), jax.random.key(1)
    return jax.random.normal(images, (batch_size, 8, 6, 3)), jax.random.normal(kernel, (3, 3, 3, 4))


def loss(convolution):
    return lambda images, kernel: jnp.sin(convolution(images, kernel, **OPTIONS)).sum()


def by_hand(images, kernel):
    """The same loss and its gradients in NumPy, window by window, float64."""
    images, kernel = (np.asarray(a, np.float64) for a in (images, kernel))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    gradients = np.zeros_like(padded), np.zeros_like(kernel)
    value = 0.0
    for i in range(0, images.shape[1], 2):
        for j in range(0, images.shape[2], 2):
            window = padded[:, i : i + 3, j : j + 3]
            output = np.einsum("nhwc,hwcd->nd", window, kernel)
            value += np.sin(output).sum()
            gradients[0][:, i : i + 3, j : j + 3] += np.einsum("nd,hwcd->nhwc", np.cos(output), kernel)
            gradients[1][:] += np.einsum("nd,nhwc->hwcd", np.cos(output), window)
    return value, (gradients[0][:, 1:-1, 1:-1], gradients[1])


@pytest.mark.parametrize("batch_size", [1, 8, 9, 37, 128])
def test_value_and_gradients(batch_size):
    images, kernel = arrays(batch_size)
    value, gradients = jax.jit(jax.value_and_grad(loss(convolve), (0, 1)))(images, kernel)
    expected, expected_gradients = by_hand(images, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-3)
    for gradient, known in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, known, rtol=1e-5, atol=1e-5 * np.abs(known).max())


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f: lambda x, w: jax.jvp(f, (x, w), (x, w))[1],
        lambda f: lambda x, w: jax.vmap(jax.grad(f, 1), (None, 0))(x, jnp.stack([w, 2 * w])),
        lambda f: lambda x, w: jax.vmap(jax.grad(f, 1))(jnp.stack([x, -x]), jnp.stack([w, 2 * w])),
        lambda f: lambda x, w: jax.grad(lambda w: (jax.grad(f, 1)(x, w) ** 2).sum())(w),
        lambda f: lambda x, w: jax.jvp(jax.grad(f, 1), (x, w), (x, w))[1],
        lambda f: lambda x, w: jax.grad(jax.checkpoint(f), 1)(x, w),
    ],
    ids=["forward", "kernels", "images and kernels", "second", "forward over reverse", "rematerialised"],
)
def test_transformations(transformed):
    expected = transformed(loss(lax.conv_general_dilated))(*arrays())
    np.testing.assert_allclose(transformed(loss(convolve))(*arrays()), expected, rtol=1e-4, atol=1e-3)


def convolutions(platform, batch_size, differentiated=(0, 1)):
    """How many convolutions the programs of a platform have: for values, and for values and gradients."""
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((batch_size, 8, 8, 3), (3, 3, 3, 4))]
    plain = loss(convolve)
    for function in (plain, jax.value_and_grad(plain, differentiated)):
        lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=(platform,))
        yield lowered.as_text().count("stablehlo.convolution")


def test_only_the_gradient_of_the_kernel_is_in_parts_and_on_cpu_alone():
    assert [tuple(convolutions("cpu", n)) for n in (8, 9, 128)] == [(1, 3), (1, 4), (1, 10)]
    assert [tuple(convolutions("cpu", n, 0)) for n in (8, 128)] == [(1, 2), (1, 2)]
    assert [tuple(convolutions(platform, 128)) for platform in ("cuda", "tpu")] == [(1, 3), (1, 3)]


def test_parts_are_neither_tiny_nor_many():
    for batch_size in (*range(1, 300), 1024, 10_000):
        assert part_size(batch_size) >= 8
        assert -(-batch_size // part_size(batch_size)) <= 16
