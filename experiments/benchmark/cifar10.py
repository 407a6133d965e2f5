"""Part `cifar10`: host memory of a run on the whole of the real CIFAR-10."""

import os

from experiments.benchmark.settings import Settings
from experiments.benchmark.startup import probe
from experiments.benchmark.table import Row, Target

PEAK_MIB = 3 * 1024.0


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part; without a data folder there is only a remark."""
    if settings.data_dir is None:
        return [], ["CIFAR-10: not measured without --data-dir."]
    found = probe("whole_run", os.fspath(settings.data_dir.absolute()), settings.quick)
    case = f"{found['images']:,} images, {found['model']}, 1 epoch of f_L, f_N and D-SINK: peak host memory"
    note = "data, training, predictions, checkpoints and report; one process"
    return [Row("cifar10", case, found["peak"], "MiB", target=Target("<=", PEAK_MIB), note=note)], []
