"""What a fresh process measures of itself, as one line of JSON; started by `startup`."""

import json
import pathlib
import sys
import tempfile
import time

import numpy as np

from experiments.benchmark.memory import peak_mib, resident_mib


def first_step(kind: str, quick: bool, started: float) -> dict[str, float]:
    """Seconds from the start of the process to the end of the first step, and of compilation.

    Args:
      kind: `torch`, or of our step how it has its auxiliaries; see `Stepper`.
      quick: whether of the small workload.
      started: when the process was, as `time.time` tells it.
    """
    from experiments.benchmark.loop_speed import QUICK_WORKLOAD, WORKLOAD

    workload = QUICK_WORKLOAD if quick else WORKLOAD
    if kind == "torch":
        from experiments.benchmark.torch_reference import Trainer

        Trainer(workload).step(np.arange(workload.batch_size))
        return {"seconds": time.time() - started, "compile": 0.0}
    from experiments.benchmark.workload import Stepper

    compilations = _Compilations()
    Stepper(workload, kind)()
    return {"seconds": time.time() - started, "compile": compilations.seconds}


def long_run(quick: bool) -> dict[str, float]:
    """Compilations and memory of a whole small training, evaluated and saved as experiments do."""
    from dsink_jax.training import Checkpointer, train
    from experiments.benchmark.workload import BASE, DSINK, Workload, one_device

    epochs, early_epoch = (4, 2) if quick else (120, 5)
    workload = Workload("small_cnn", "small CNN", 64, 300, shape=(8, 8, 3))  # as small as the digits
    compilations, data, devices = _Compilations(), workload.data(), one_device()
    memory, counts = {}, {}

    def evaluate(trained):
        return {"sum": float(trained.logits(data.inputs, workload.standardization, devices).sum())}

    def note(record):
        memory[record["epoch"]] = resident_mib()
        counts[record["epoch"]] = compilations.count

    with tempfile.TemporaryDirectory() as folder:
        train(
            workload.model,
            BASE,
            data,
            workload.settings(epochs),
            facts=workload.facts,
            seed=0,
            devices=devices,
            standardization=workload.standardization,
            term=DSINK,
            evaluate=evaluate,
            checkpointer=Checkpointer(pathlib.Path(folder) / "checkpoints"),
            on_record=note,
        )
    return {
        "epochs": epochs,
        "early_epoch": early_epoch,
        "compilations": counts[1],
        "recompilations": counts[epochs] - counts[1],
        "early": memory[early_epoch],
        "half": memory[epochs // 2],
        "last": memory[epochs],
        # The system notes a new peak a moment late.
        "peak": max(peak_mib(), *memory.values()),
    }


class _Compilations:
    """Counts compilations, and sums up the seconds of tracing, lowering and compiling."""

    def __init__(self):
        import jax.monitoring

        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, duration, **_):
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration
            self.count += event.endswith("backend_compile_duration")


def main() -> None:
    """Arguments: what to measure, of which kind, whether quick, when it was started."""
    what, kind, quick, started = sys.argv[1:]
    if what == "first_step":
        found = first_step(kind, quick == "True", float(started))
    else:
        found = long_run(quick == "True")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
