"""What D-SINK adds to a step, by a model: `python -m experiments.scaling`; measured: with `--measure`.

The model is of one device and its n = N / D of the batch's N examples. docs/scaling.md has both tables.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from dsink_jax import allocation, dsink_loss, surrogate_labels
from dsink_jax.methods import METHODS, build_method, bytes_per_example
from experiments.provenance import device_description, versions

FLOAT = 4
# Arithmetic on a number of the cost in a half step: two sums, a scaling, a comparison, a difference, an
# exponential, a sum. Two half steps an iteration, and a third for the error at every tenth.
OPERATIONS_PER_ITERATION = 7 * 2.1
# The maximum and the sum of a half step over the rows; the error at every tenth iteration has the same.
EXCHANGES_PER_ITERATION = 2 * 1.1
ITERATIONS = 50
IMAGE_BYTES = 224 * 224 * 3


@dataclasses.dataclass(frozen=True)
class Setting:
    """A size to compute for.

    Attributes:
      name: in the table.
      examples: M, training examples.
      classes: C.
      batch: N, over all devices.
      devices: D.
    """

    name: str
    examples: int
    classes: int
    batch: int
    devices: int


SETTINGS = (
    Setting("ImageNet-LT", 115_846, 1_000, 1_024, 8),
    Setting("10^8 images, 10^5 classes", 10**8, 10**5, 32_768, 256),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What solving for Q, the loss and its gradient cost one device in one step.

    Attributes:
      operations: arithmetic in the iterations.
      argument_bytes: the three logits and the mask of its rows.
      output_bytes: losses and gradient.
      work_bytes: everything between.
      received_bytes: by the gather, once.
      exchanges: all-reduces in the iterations.
      exchanged_bytes: what all of those sum up, together.
    """

    operations: float
    argument_bytes: int
    output_bytes: int
    work_bytes: int
    received_bytes: int
    exchanges: float
    exchanged_bytes: float

    @property
    def memory_bytes(self) -> int:
        """Arguments, output and work space."""
        return self.argument_bytes + self.output_bytes + self.work_bytes


def cost_per_step(setting: Setting, *, distribute: bool, iterations: int = ITERATIONS) -> Cost:
    """The model, per device: see the class. The work space is XLA's on CPU, which tests hold it to."""
    rows = setting.batch // setting.devices
    own, whole = FLOAT * rows * setting.classes, FLOAT * setting.batch * setting.classes
    exchanges = EXCHANGES_PER_ITERATION * iterations if distribute else 0.0
    return Cost(
        operations=OPERATIONS_PER_ITERATION * iterations * (own if distribute else whole) / FLOAT,
        argument_bytes=3 * own + rows,
        output_bytes=own + FLOAT * rows,
        # Gathered: cost and labels of the whole, and two of the own rows. Distributed: four of the own rows.
        work_bytes=4 * own if distribute else 2 * whole + 2 * own,
        received_bytes=0 if distribute else whole - own,
        exchanges=exchanges,
        exchanged_bytes=exchanges * FLOAT * setting.classes,
    )


def state_bytes(name: str, setting: Setting) -> int:
    """Per-example state of a method in float32, on every device."""
    method = build_method(name, METHODS[name].method.required)
    return setting.examples * bytes_per_example(method, setting.classes)


def amount(value: float, unit: str = "B") -> str:
    """A number with two significant digits and a prefix: 26214400000.0 B is `26 GB`."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    digits = 1 if 0 < value < 9.95 else 0
    return f"{value:.{digits}f} {prefixes[0]}{unit}".strip()


def model_table() -> str:
    """The model at `SETTINGS`, as Markdown."""
    rows = {
        "M, C": lambda s: f"{s.examples:,}, {s.classes:,}",
        "N on D devices": lambda s: f"{s.batch:,} on {s.devices}",
        "N C against `DISTRIBUTE_FROM`": lambda s: (
            f"{s.batch * s.classes:,}: "
            + ("distribute" if s.batch * s.classes >= allocation.DISTRIBUTE_FROM else "gather")
        ),
    }
    for distribute, how in ((False, "gathered"), (True, "distributed")):

        def cost(s, distribute=distribute):
            return cost_per_step(s, distribute=distribute)

        rows |= {
            f"**{how}**: arithmetic of a step": lambda s, cost=cost: amount(cost(s).operations, "op"),
            f"{how}: memory": lambda s, cost=cost: amount(cost(s).memory_bytes),
            f"{how}: of it work space": lambda s, cost=cost: amount(cost(s).work_bytes),
        }
        if distribute:
            rows["distributed: all-reduces of a step, bytes each"] = lambda s, cost=cost: (
                f"{cost(s).exchanges:.0f}, {amount(FLOAT * s.classes)}"
            )
        else:
            rows["gathered: received in one all-gather"] = lambda s, cost=cost: amount(cost(s).received_bytes)
    rows |= {
        "**replicated**: cached logits of f_N and f_L": lambda s: amount(2 * FLOAT * s.examples * s.classes),
        "images of 224 x 224 x 3, uint8": lambda s: amount(s.examples * IMAGE_BYTES),
        "state of `elr`, float32": lambda s: amount(state_bytes("elr", s)),
        "state of `dividemix`, `tabasco`, `ot_reweighting`": lambda s: amount(state_bytes("dividemix", s)),
        "state of `truncated_gce`": lambda s: amount(state_bytes("truncated_gce", s)),
        "matrix of `forward_correction`": lambda s: amount(FLOAT * s.classes**2),
    }
    lines = [f"| | {' | '.join(s.name for s in SETTINGS)} |", "| --- " * (len(SETTINGS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(s) for s in SETTINGS)} |" for name, cell in rows.items()]
    return "\n".join(lines)


@contextlib.contextmanager
def distributing(distribute: bool) -> Iterator[None]:
    """What is traced meanwhile leaves batches of any size where they are, or gathers them."""
    usual = allocation.DISTRIBUTE_FROM
    allocation.DISTRIBUTE_FROM = 0 if distribute else math.inf
    try:
        yield
    finally:
        allocation.DISTRIBUTE_FROM = usual


def compiled_loss(setting: Setting, devices: list[jax.Device], *, distribute: bool) -> jax.stages.Compiled:
    """Losses and gradient `[N, C]` of a batch split over the devices, compiled and not run."""

    def loss_and_gradient(logits, noise_robust, imbalance_robust, where):
        def total(logits):
            losses = dsink_loss(logits, noise_robust, imbalance_robust, where=where, axis_name="d")
            return losses.sum(), losses

        (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(logits)
        return losses, gradient

    mesh, split = Mesh(np.array(devices), ("d",)), PartitionSpec("d")
    mapped = jax.shard_map(
        loss_and_gradient, mesh=mesh, in_specs=(split,) * 4, out_specs=split, check_vma=False
    )
    logits = jax.ShapeDtypeStruct((setting.batch, setting.classes), jnp.float32)
    where = jax.ShapeDtypeStruct((setting.batch,), bool)
    with distributing(distribute):
        return jax.jit(mapped).lower(logits, logits, logits, where).compile()


def compiled_bytes(compiled: jax.stages.Compiled) -> int:
    """Arguments, output and work space of one device."""
    found = compiled.memory_analysis()
    return found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes


MEASURED = (
    Setting("", 0, 100, 512, 8),
    Setting("", 0, 1_000, 1_024, 8),
    Setting("", 0, 1_000, 8_192, 8),
    Setting("", 0, 10_000, 8_192, 8),
)
# Above this many numbers N C only the memory is measured.
TIMED_TO = 2**23
REPEATS = 5


def seconds_of_labels(setting: Setting, devices: list[jax.Device], *, distribute: bool) -> tuple[float, int]:
    """Median time of solving for Q over the devices, and the iterations it took."""

    @functools.partial(jax.pmap, axis_name="d", devices=devices)
    def draw(device):
        key = jax.random.fold_in(jax.random.key(0), device)
        base, *noise = 3.0 * jax.random.normal(key, (3, setting.batch // setting.devices, setting.classes))
        return [base + 0.2 * each for each in noise]

    @functools.partial(jax.pmap, axis_name="d", devices=devices)
    def solve(logits, noise_robust):
        tail = jnp.linspace(0.0, np.log(100.0), setting.classes)
        marginal = jax.lax.pmean(jax.nn.softmax(noise_robust - tail).mean(0), "d")
        solved = surrogate_labels(logits, noise_robust, marginal, axis_name="d")
        return solved.labels, solved.iterations

    arrays = jax.block_until_ready(draw(np.arange(setting.devices)))
    with distributing(distribute):
        _, iterations = jax.block_until_ready(solve(*arrays))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(solve(*arrays))
        times.append(time.perf_counter() - start)
    return statistics.median(times), int(iterations[0])


def measured_table(devices: list[jax.Device]) -> str:
    """Memory and time at `MEASURED`, as Markdown."""
    lines = [
        "| N x C | memory, gathered (model) | distributed (model) | Q, gathered | distributed | iterations |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for setting in MEASURED:
        cells, iterations = [f"{setting.batch:,} x {setting.classes:,}"], "not run"
        for distribute in (False, True):
            model = cost_per_step(setting, distribute=distribute).memory_bytes
            found = compiled_bytes(compiled_loss(setting, devices, distribute=distribute))
            cells.append(f"{amount(found)} ({amount(model)})")
        for distribute in (False, True):
            if setting.batch * setting.classes > TIMED_TO:
                cells.append("not run")
                continue
            seconds, iterations = seconds_of_labels(setting, devices, distribute=distribute)
            cells.append(f"{seconds:.2g} s")
        lines.append(f"| {' | '.join(cells)} | {iterations} |")
    found = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "dsink-jax")
    return (
        "\n".join(lines)
        + f"\n\n`python -m experiments.scaling --measure`; {device_description(devices)}; {found}; "
        + f"{time.strftime('%Y-%m-%d')}; median of {REPEATS} runs."
    )


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--measure", action="store_true", help="measure on 8 virtual CPU devices (minutes)")
    return made


def main() -> None:
    """Prints a table."""
    if not parser().parse_args().measure:
        print(model_table())
        return
    jax.config.update("jax_num_cpu_devices", 8)
    print(measured_table(jax.devices("cpu")))


if __name__ == "__main__":
    main()
