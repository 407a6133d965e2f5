"""Which examples each step of a training takes, and which of them are this process's."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from dsink_jax.data import batches
from dsink_jax.methods.hooks import SecondStage
from dsink_jax.training import parallel
from dsink_jax.training.arguments import DeviceData


class TrainingOrder:
    """The order of the epochs of one training, and this process's share of it."""

    def __init__(
        self,
        data: DeviceData,
        batch_size: int,
        devices: Sequence[jax.Device],
        num_classes: int,
        seed: int,
        stage: SecondStage | None,
    ):
        """Takes all examples but the meta set; classes in balance if the stage asks for it."""
        kept = np.arange(len(data.labels))
        if data.meta_index is not None:
            kept = np.setdiff1d(kept, data.meta_index)
        self._kept, self._labels = kept.astype(np.int32), np.asarray(data.labels)[kept]
        self._split = (batch_size, parallel.total_devices(devices))
        self._devices, self._seed, self._num_classes = devices, seed, num_classes
        self._class_balanced = stage is not None and stage.class_balanced
        self.num_examples = len(kept)
        self.steps = batches.steps_per_epoch(len(kept), batch_size)

    def dispatches(
        self, epoch: int, steps_each: int, done: int
    ) -> Iterator[tuple[tuple[np.ndarray, ...], int]]:
        """The arguments and the number of steps of each call from step `done` on.

        The arguments are index and where `[devices, n]`; for k > 1 steps in a call, which of these are
        steps, bool `[k]`, then index and where `[devices, k, n]`. The last call is filled up.
        """
        order = self._of_epoch(epoch)
        for start in range(done, self.steps, steps_each):
            index, where = (part[start : start + steps_each] for part in order)
            steps = len(index)
            if steps_each == 1:
                yield (index[0], where[0]), steps
                continue
            missing = ((0, steps_each - steps), (0, 0), (0, 0))
            index, where = np.pad(index, missing), np.pad(where, missing)
            active = np.arange(steps_each) < steps
            yield (active, index.swapaxes(0, 1), where.swapaxes(0, 1)), steps

    def _of_epoch(self, epoch):
        if self._class_balanced:
            order = batches.class_balanced_order(
                self._labels, self._num_classes, *self._split, seed=self._seed, epoch=epoch
            )
        else:
            order = batches.training_order(self.num_examples, *self._split, seed=self._seed, epoch=epoch)
        own = parallel.own_devices(self._devices)
        return self._kept[order.index[:, own]], order.where[:, own]
