"""One of two processes; the second, which has asked less often, is told to end. Started by test_processes.

The first saves in between, as in a training whose steps have run ahead.
"""

import os
import pathlib
import signal
import sys
import time

import jax
import numpy as np

ASKED = (20, 10)
LIMIT = 100


def main(index, port, place):
    from dsink_jax.training import Checkpointer, processes
    from dsink_jax.training.arguments import TrainState
    from dsink_jax.training.checkpoint import Checkpoint
    from experiments.interruption import StopRequest

    processes.join(f"localhost:{port}", 2, index)
    jax.devices()  # which all processes have to ask for
    with StopRequest() as should_stop:
        asked = ASKED[index]
        assert not any([should_stop(0) for _ in range(asked)])
        if index == 0:
            state = TrainState(*(np.zeros(1) for _ in TrainState._fields))._replace(step=np.int32(3))
            checkpointer = Checkpointer(place / "checkpoints")
            checkpointer.save(Checkpoint(state, 1, [], 0.0))
            checkpointer.close()
            (place / "saved").touch()
        else:
            while not (place / "saved").exists():
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # JAX looks for the signal every second
        while asked < LIMIT:
            asked += 1
            if should_stop(0):
                break
        assert should_stop(0), "JAX says so once, but whoever missed it has to hear of it"
    (place / f"asked-{index}").write_text(str(asked))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]))
