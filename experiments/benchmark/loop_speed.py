"""Part `pipeline`: images a second of the epoch loop, of the step alone, and of the same step in PyTorch."""

import statistics
import time

from dsink_jax.training import SilentProgress, train
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row
from experiments.benchmark.timing import PAUSE_SECONDS, ratio
from experiments.benchmark.workload import BASE, DSINK, Stepper, Workload, one_device

WORKLOAD = Workload("resnet20", "ResNet-20", 128, 512)
QUICK_WORKLOAD = Workload("resnet8", "ResNet-8", 4, 8)
AGREEMENT_EXAMPLES, MOST_APART = 16, 1e-4
EPOCHS, QUICK_EPOCHS = 9, 3  # the first is a warm-up
_LOOP, _STEP, _TORCH = "epoch loop", "step alone", "PyTorch step"


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part."""
    from experiments.benchmark.agreement import agreement
    from experiments.benchmark.torch_reference import Trainer, best_threads

    workload = QUICK_WORKLOAD if settings.quick else WORKLOAD
    apart = agreement(workload, AGREEMENT_EXAMPLES)
    if max(apart) > MOST_APART:
        raise RuntimeError(f"The PyTorch step is not ours, there is nothing to compare: {apart}.")
    stepper, trainer = Stepper(workload, "cached"), Trainer(workload)
    indices = stepper.epoch_indices()
    threads = best_threads(lambda: trainer.step(indices[0]))

    def epoch_of_steps():
        for _ in indices:
            stepper()

    def epoch_of_torch():
        for index in indices:
            trainer.step(index)

    epoch_of_steps()
    between = _Between({_STEP: epoch_of_steps, _TORCH: epoch_of_torch})
    train(
        workload.model,
        BASE,
        workload.data(),
        workload.settings(QUICK_EPOCHS if settings.quick else EPOCHS),
        facts=workload.facts,
        seed=0,
        devices=one_device(),
        standardization=workload.standardization,
        term=DSINK,
        progress=between,
    )
    seconds = between.seconds
    print(f"  {workload.case}: {len(seconds[_LOOP])} rounds", flush=True)
    rows = []
    for name, against, target, note in (
        (_LOOP, _STEP, ">= 0.95", "the loop looks at a step's loss when the next one is under way"),
        (_STEP, _TORCH, "", f"{threads} PyTorch threads, channels-last"),
        (_LOOP, _TORCH, "", ""),
    ):
        own, other = (workload.examples / statistics.median(seconds[which]) for which in (name, against))
        gain, case = ratio(seconds[against], seconds[name]), f"{workload.case}: {name}"
        rows.append(Row("pipeline", case, own, "images/s", against, other, gain, target, note))
    remark = (
        "The PyTorch step is ours: from the same weights the loss of a batch of "
        f"{AGREEMENT_EXAMPLES} differs by {apart.loss:.0e} of it, and no gradient by more than "
        f"{apart.gradient:.0e}."
    )
    return rows, [remark]


class _Between(SilentProgress):
    """Times the epochs of the loop, and after each the other contestants, so that all take turns."""

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
