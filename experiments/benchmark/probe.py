"""What a fresh process measures of itself, as one line of JSON; started by `startup`."""

import json
import pathlib
import sys
import tempfile
import time

from experiments.benchmark.memory import peak_mib, resident_mib


def first_step(kind: str, quick: bool, started: float) -> dict[str, float]:
    """Seconds from the start of the process to the end of the first step, and of compilation."""
    from experiments.benchmark.loop_speed import QUICK_WORKLOAD, WORKLOAD, torch_trainer

    workload = QUICK_WORKLOAD if quick else WORKLOAD
    if kind == "torch":
        trainer = torch_trainer(workload)
        import numpy as np

        trainer.step(np.arange(workload.batch_size))
        return {"seconds": time.time() - started, "compile": 0.0}
    import jax

    from experiments.benchmark.workload import BASE, DSINK, Stepper

    compilations = _Compilations()
    method, auxiliaries = (DSINK, "cached") if kind == "dsink" else (BASE, "none")
    step = Stepper(workload, method, auxiliaries=auxiliaries, devices=jax.local_devices()[:1])
    step()
    return {"seconds": time.time() - started, "compile": compilations.seconds}


def long_run(quick: bool) -> dict[str, float]:
    """Compilations and memory of a whole small training, evaluated and saved as experiments do."""
    import jax

    from dsink_jax.models import build_model
    from dsink_jax.training import AXIS, Checkpointer, FitSettings, fit, make_predictor
    from experiments.benchmark.workload import DSINK, NUM_CLASSES, OPTIMIZER, PREPROCESSING, make_data

    epochs, early_epoch = (4, 2) if quick else (120, 5)
    compilations, devices = _Compilations(), jax.local_devices()[:1]
    data = make_data(300)
    data = data._replace(images=data.images[:, ::4, ::4].copy())  # as small as the digits
    model = build_model("small_cnn", NUM_CLASSES, axis_name=AXIS)
    predict = make_predictor(model, DSINK, PREPROCESSING, devices)
    memory, counts = {}, {}

    def note(record):
        memory[record["epoch"]] = resident_mib()
        counts[record["epoch"]] = compilations.count

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            DSINK,
            data,
            PREPROCESSING,
            FitSettings(epochs, 64, OPTIMIZER, checkpoint_every=1),
            num_classes=NUM_CLASSES,
            seed=0,
            devices=devices,
            evaluate=lambda variables: {"sum": float(predict(variables, data.images).sum())},
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
