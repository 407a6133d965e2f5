"""The same D-SINK step in plain PyTorch: what ours is held against.

The CIFAR ResNet of `dsink_jax.models`, the same augmentation, surrogate labels, loss and optimiser. Images
lie in channels-last order, which PyTorch's CPU convolutions are fastest with.
"""

import itertools
import math
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dsink_jax.allocation import DEFAULT_MAX_ITERATIONS, DEFAULT_THRESHOLD, EPSILON
from experiments.benchmark.workload import (
    BLOCKS,
    DSINK,
    MEAN,
    OPTIMIZER,
    PADDING,
    STD,
    TOTAL_STEPS,
    Workload,
)


class CifarResNet(nn.Module):
    """Depth 6 * blocks + 2, shortcuts without parameters."""

    def __init__(self, num_classes: int, blocks: int):
        super().__init__()
        self.blocks = blocks
        widths = [3, 16, *(width for width in (16, 32, 64) for _ in range(2 * blocks))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 3, self._stride(i), 1, bias=False)
            for i, (narrow, wide) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.classifier = nn.Linear(64, num_classes)
        self.to(memory_format=torch.channels_last)

    def _stride(self, i):
        return 2 if i in (1 + 2 * self.blocks, 1 + 4 * self.blocks) else 1

    def forward(self, images):
        """Logits `[N, C]` of images `[N, channels, H, W]`."""
        x = functional.relu(self.norms[0](self.convolutions[0](images)))
        for i in range(1, len(self.convolutions), 2):
            y = functional.relu(self.norms[i](self.convolutions[i](x)))
            y = self.norms[i + 1](self.convolutions[i + 1](y))
            extra = y.shape[1] - x.shape[1]
            if extra:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra // 2, extra - extra // 2))
            x = functional.relu(x + y)
        return self.classifier(x.mean((2, 3)))


def copy_weights(variables, module: CifarResNet) -> None:
    """Gives a module the parameters of ours, batch statistics included."""
    for name, value in from_flax(variables["params"]).items():
        module.get_parameter(name).data.copy_(torch.from_numpy(value))
    for i, norm in enumerate(module.norms):
        for name in ("mean", "var"):
            statistics = np.asarray(variables["batch_stats"][f"BatchNorm_{i}"][name])
            getattr(norm, f"running_{name}").copy_(torch.tensor(statistics))


def from_flax(tree) -> dict[str, np.ndarray]:
    """Parameters, or their gradient, under PyTorch's names and in its order of axes."""
    found = {}
    for key, part in tree.items():
        kind, _, i = key.partition("_")
        part = {name: np.array(value) for name, value in part.items()}
        if kind == "Conv":
            found[f"convolutions.{i}.weight"] = part["kernel"].transpose(3, 2, 0, 1)
        elif kind == "BatchNorm":
            found |= {f"norms.{i}.weight": part["scale"], f"norms.{i}.bias": part["bias"]}
        else:
            found |= {"classifier.weight": part["kernel"].T, "classifier.bias": part["bias"]}
    return found


@torch.no_grad()
def surrogate_labels(logits, noise_robust_logits, marginal, iterations: int | None = None):
    """Q after so many iterations; None: stopped like ours, which looks at the error every 10 iterations."""
    kernel = (logits.log_softmax(1) + noise_robust_logits.log_softmax(1)) / EPSILON
    log_row, log_column = -math.log(len(kernel)), marginal.log()
    u = torch.zeros(len(kernel))
    for iteration in range(1, (iterations or DEFAULT_MAX_ITERATIONS) + 1):
        v = log_column - torch.logsumexp(kernel + u[:, None], 0)
        u = log_row - torch.logsumexp(kernel + v, 1)
        if iterations is None and iteration % 10 == 0:
            reached = (kernel + u[:, None] + v).exp().sum(0)
            if (reached - marginal).abs().sum() < DEFAULT_THRESHOLD:
                break
    return (kernel + v).softmax(1)


def dsink_objective(logits, labels, noise_robust_logits, imbalance_robust_logits, alpha: float):
    """Cross-entropy with alpha times D-SINK, divided by max(1, (1 + alpha) / 2); the batch's mean."""
    marginal = imbalance_robust_logits.softmax(1).mean(0)
    targets = surrogate_labels(logits.detach(), noise_robust_logits, marginal)
    divergence = functional.kl_div(logits.log_softmax(1), targets, reduction="batchmean")
    return (functional.cross_entropy(logits, labels) + alpha * divergence) / max(1.0, (1.0 + alpha) / 2.0)


def augment(images, padding: int):
    """Random crops and mirrors of uint8 `[n, H, W, channels]` in one gather, with the shape they have."""
    n, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))
    top, left = torch.randint(2 * padding + 1, (2, n, 1))
    columns = torch.arange(width).expand(n, width)
    columns = left + torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    rows = top + torch.arange(height)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


class Trainer:
    """Training with looked-up auxiliary logits; a call makes one step."""

    def __init__(self, workload: Workload, alpha: float = DSINK.alpha):
        """Takes a workload of ours whose network is one of `BLOCKS`."""
        data, self.alpha = workload.data(), alpha
        self.module = CifarResNet(workload.num_classes, BLOCKS[workload.name])
        self._images = torch.from_numpy(data.inputs)
        self._labels = torch.from_numpy(data.labels).long()
        self._auxiliaries = [
            torch.from_numpy(logits) for logits in (data.noise_robust_logits, data.imbalance_robust_logits)
        ]
        self._optimizer = torch.optim.SGD(
            self.module.parameters(),
            OPTIMIZER.learning_rate,
            momentum=OPTIMIZER.momentum,
            nesterov=OPTIMIZER.nesterov,
            weight_decay=OPTIMIZER.weight_decay,
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, TOTAL_STEPS)

    def step(self, index: np.ndarray) -> float:
        """One step on the examples at `index`; the loss."""
        index = torch.from_numpy(index).long()
        images = augment(self._images[index], PADDING)
        images = (images.float().div_(255.0) - torch.tensor(MEAN)) / torch.tensor(STD)
        # [N, H, W, channels] seen as [N, channels, H, W] is channels-last without a copy.
        loss = self.objective(images.permute(0, 3, 1, 2), index)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        return loss.item()

    def objective(self, images, index):
        """The loss of prepared images."""
        noise_robust, imbalance_robust = (logits[index] for logits in self._auxiliaries)
        logits = self.module(images)
        return dsink_objective(logits, self._labels[index], noise_robust, imbalance_robust, self.alpha)


def best_threads(call) -> int:
    """Sets PyTorch to one thread or to one a core, whichever is faster for this call; how many that is."""
    seconds = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        for _ in range(2):
            before = time.perf_counter()
            call()
            seconds[threads] = time.perf_counter() - before
            if seconds[threads] > 1:
                break  # long enough for a first call not to matter
    fastest = min(seconds, key=seconds.get)
    torch.set_num_threads(fastest)
    return fastest
