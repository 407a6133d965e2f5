"""The table of methods that `--list-methods` prints."""

from dsink_jax.methods import METHODS, build_method, bytes_per_example
from dsink_jax.methods.hooks import TwoStages
from dsink_jax.report import align
from experiments.config import ADJUSTED, ENSEMBLE, NAIVE_TUNED

# Costs are those of an example.
_CLASSES, _EPOCHS = 10, 100


def method_list() -> str:
    """All methods with their role, source, cost relative to cross-entropy, and what they must be given."""
    rows = [("method", "for", "source", "networks", "forwards", "bytes", "epochs", "must be given")]
    for name, entry in METHODS.items():
        method = build_method(name, entry.method.required)
        second = method.second_stage(_EPOCHS).epochs if isinstance(method, TwoStages) else 0
        flags = (f"--{name}-{option}".replace("_", "-") for option in entry.method.required)
        rows.append(
            (
                name,
                "-" if entry.robust_to == "nothing" else entry.robust_to,
                entry.source,
                str(method.networks),
                f"{method.forward_passes:g}",
                str(bytes_per_example(method, _CLASSES)),
                f"{1 + second / _EPOCHS:g}",
                " ".join(flags) or "-",
            )
        )
    table = align(rows, left=3)
    return (
        f"{table}\n\n"
        "for: what it is robust to; any can be --imbalance-method, --noise-method, --base, --baselines.\n"
        "networks, forwards: networks trained, and forward passes of one network for each example and\n"
        "step, where cross-entropy has 1. bytes: float32 state kept for each example at 10 classes.\n"
        "epochs: of all stages, as a multiple of the first.\n"
        f"More --baselines: naive, {NAIVE_TUNED}; {ADJUSTED}, {ENSEMBLE} (which train nothing).\n"
        "Options of a method: --help."
    )
