"""Part `pipeline`: images a second of the epoch loop, of the step alone, and of the same step in PyTorch."""

import statistics
import time

import jax

from dsink_jax.models import build_model
from dsink_jax.training import AXIS, FitSettings, SilentProgress, fit
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, Target
from experiments.benchmark.timing import PAUSE_SECONDS, ratio
from experiments.benchmark.workload import (
    ALPHA,
    BLOCKS,
    DSINK,
    NUM_CLASSES,
    OPTIMIZER,
    PREPROCESSING,
    Stepper,
    Workload,
    make_data,
)

WORKLOAD = Workload("resnet20", "ResNet-20", 128, 512)
QUICK_WORKLOAD = Workload("resnet8", "ResNet-8", 4, 8)
AGREEMENT_EXAMPLES, MOST_APART = 16, 1e-4
EPOCHS = 9  # the first is a warm-up
QUICK_EPOCHS = 3
_LOOP, _STEP, _TORCH = "epoch loop (fit)", "step alone", "PyTorch step"


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part."""
    from experiments.benchmark.agreement import agreement
    from experiments.benchmark.torch_reference import best_threads

    workload = QUICK_WORKLOAD if settings.quick else WORKLOAD
    devices = jax.local_devices()[:1]
    steps = workload.examples // workload.batch_size
    apart = agreement(workload.model, AGREEMENT_EXAMPLES)
    if max(apart) > MOST_APART:
        raise RuntimeError(f"The PyTorch step is not ours, there is nothing to compare: {apart}.")
    stepper = Stepper(workload, DSINK, auxiliaries="cached", devices=devices)
    trainer, indices = torch_trainer(workload), stepper.epoch_indices()
    threads = best_threads(lambda: trainer.step(indices[0]))

    def epoch_of_steps():
        for _ in range(steps):
            stepper()

    def epoch_of_torch():
        for index in indices:
            trainer.step(index)

    epoch_of_steps()
    between = _Between({_STEP: epoch_of_steps, _TORCH: epoch_of_torch})
    fit(
        build_model(workload.model, NUM_CLASSES, axis_name=AXIS),
        DSINK,
        make_data(workload.examples),
        PREPROCESSING,
        FitSettings(QUICK_EPOCHS if settings.quick else EPOCHS, workload.batch_size, OPTIMIZER),
        num_classes=NUM_CLASSES,
        seed=0,
        devices=devices,
        progress=between,
    )
    seconds = between.seconds
    print(f"  {workload.case}: {len(seconds[_LOOP])} rounds", flush=True)
    rows = [
        _row(
            workload, seconds, _LOOP, _STEP, Target(">=", 0.95), "the loop waits for the device once an epoch"
        ),
        _row(workload, seconds, _STEP, _TORCH, None, f"{threads} PyTorch threads, channels-last"),
        _row(workload, seconds, _LOOP, _TORCH, None, ""),
    ]
    remark = (
        "The PyTorch step is ours: from the same weights the loss of a batch of "
        f"{AGREEMENT_EXAMPLES} differs by {apart.loss:.0e} of it, and no gradient by more than "
        f"{apart.gradient:.0e}."
    )
    return rows, [remark]


def torch_trainer(workload: Workload):
    """The same training in PyTorch."""
    from experiments.benchmark.torch_reference import CifarResNet, Trainer

    module = CifarResNet(NUM_CLASSES, BLOCKS[workload.model])
    return Trainer(module, make_data(workload.examples), PREPROCESSING, OPTIMIZER, ALPHA, 10_000)


class _Between(SilentProgress):
    """Times the epochs of `fit`, and after each the other contestants, so that all take turns."""

    def __init__(self, others):
        self._others = others
        self.seconds = {name: [] for name in (_LOOP, *others)}

    def start(self, epochs, done, examples):
        self._started = time.perf_counter()

    def epoch_done(self, epoch, record):
        passed = time.perf_counter() - self._started
        if epoch > 1:
            self.seconds[_LOOP].append(passed)
            for name, call in self._others.items():
                time.sleep(PAUSE_SECONDS)
                before = time.perf_counter()
                call()
                self.seconds[name].append(time.perf_counter() - before)
        time.sleep(PAUSE_SECONDS)
        self._started = time.perf_counter()


def _row(workload, seconds, name, against, target, note):
    own, other = (workload.examples / statistics.median(seconds[which]) for which in (name, against))
    gain = ratio(seconds[against], seconds[name])
    return Row("pipeline", f"{workload.case}: {name}", own, "images/s", against, other, gain, target, note)
