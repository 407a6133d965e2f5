"""One process of a training by several, started by test_processes: trains the tiny network, tells its end."""

import json
import pathlib
import sys
import time

import jax


class Source:
    """Inputs to be read one by one, which remembers which were."""

    def __init__(self, inputs):
        self.inputs, self.shape, self.dtype, self.read = inputs, inputs.shape, inputs.dtype, []

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, position):
        self.read.append(position)
        return self.inputs[position]


def main(index, count, devices, port, place, pause, words):
    jax.config.update("jax_num_cpu_devices", devices)
    from dsink_jax.training import processes

    if count > 1:
        processes.join(f"localhost:{port}", count, index)
    import numpy as np

    from dsink_jax import allocation
    from dsink_jax.methods import CrossEntropy, DSink, EarlyLearningRegularization
    from dsink_jax.models import from_linen
    from dsink_jax.training import Checkpointer, DeviceData, OptimizerSettings
    from own_networks import Linen
    from tiny_training import sequences, train

    streamed = "streamed" in words
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(0, 255, (60, 8, 8, 1)), rng.integers(0, 4, 60)
    inputs, method, options = inputs.astype(np.uint8), EarlyLearningRegularization(), {}
    if "own" in words:
        inputs, labels, *_ = sequences()
        options = {"model": from_linen(Linen(4)), "preprocess": None, "standardization": None}
        options |= {"optimizer": OptimizerSettings("adamw", 0.01), "average_decay": 0.9}
    data = DeviceData(Source(inputs) if streamed else inputs, labels.astype(np.int32))
    first = processes.is_first()
    told = processes.from_first(lambda: {"process": jax.process_index()})
    if "pieces" in words:
        processes._PIECE = 1000
        for size in (0, 1, 999, 1000, 1001, 3000, 3001):
            content = bytes(i % 251 for i in range(size))
            assert processes._broadcast(content if first else b"") == content

    def wait(record):
        print("epoch", record["epoch"], flush=True)
        time.sleep(pause)

    if "dsink" in words:
        method, options = CrossEntropy(), {"term": DSink()}
        f_N, f_L = rng.normal(0, 3, (2, 60, 4)).astype(np.float32)
        data = data._replace(noise_robust_logits=f_N, imbalance_robust_logits=f_L)
    if "minutes" in words and first:  # whose clock says so at every step
        options |= {"checkpoint_minutes": 1e-9}
    if "distributed" in words:
        allocation.DISTRIBUTE_FROM = 1
    trained = train(
        *(method, data, jax.local_devices(), 1000 if pause else 3),
        checkpointer=Checkpointer(pathlib.Path(place) / "checkpoints") if first else None,
        on_record=wait,
        **options,
    )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.variables)]
    np.savez(pathlib.Path(place) / f"end-{index}.npz", *leaves)
    ends = {"history": trained.history, "told": told, "devices": len(jax.devices())}
    if "own" in words:
        ends["logits"] = trained.logits(inputs, None, jax.local_devices()).tolist()
    if streamed:
        ends["read"] = len(data.inputs.read)
    (pathlib.Path(place) / f"end-{index}.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    index, count, devices, port = map(int, sys.argv[1:5])
    main(index, count, devices, port, sys.argv[5], float(sys.argv[6]), sys.argv[7:])
