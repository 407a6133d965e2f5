"""A fit that SIGKILL ends in the middle: `python interrupted_fit.py KIND OUTPUT [DIRECTORY [STAGE EPOCH]]`.

Saves the fitted model, unless it is killed after that epoch of that stage. Prints the stages that trained.
"""

import os
import signal
import sys

import jax
import numpy as np

from blobs import WithDropout, corrupted_blobs, quarters
from dsink_jax import fit
from dsink_jax.data import RandomCrop
from dsink_jax.estimator import fitting
from dsink_jax.training import SilentProgress


class Killing(SilentProgress):
    """Ends the process in the way that the system does when memory runs out."""

    stage, epoch = None, None

    def __init__(self, name):
        self._name = name
        print(name, flush=True)

    def start(self, epochs, done, examples):
        print(f"{self._name} from {done}", flush=True)

    def epoch_done(self, epoch, record):
        if (self._name, epoch) == (self.stage, self.epoch):
            os.kill(os.getpid(), signal.SIGKILL)


def call(kind, **how):
    """The same fit each time."""
    how = {"epochs": 25, "batch_size": 32, "devices": jax.devices()[:1], **how}
    if kind == "vectors":
        return fit(*corrupted_blobs(), **how, average_decay=0.9, auxiliary_predictions="cached")
    images, labels = quarters(64, seed=0)
    labels = np.where(np.arange(64) % 5, labels, (labels + 1) % 4)
    own = {"model": WithDropout(4), "optimizer": "adamw", "preprocess": RandomCrop(1)}
    return fit(images, labels, **how, **own, imbalance_method="elr")


def main(kind, output, directory=None, stage=None, epoch=None):
    Killing.stage, Killing.epoch = stage, int(epoch or 0)
    fitting.make_progress = Killing
    call(kind, directory=directory, verbose=True).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
