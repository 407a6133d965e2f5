"""The table of methods that `--list-methods` prints."""

from dsink_jax.methods import METHODS, MethodOptions, TrainingFacts, build_method, bytes_per_example
from dsink_jax.methods.registry import option_name
from dsink_jax.report import align
from experiments.config import ADJUSTED, ENSEMBLE, NAIVE_TUNED

# Costs are those of an example training set: 10 classes, 100 epochs.
_FACTS = TrainingFacts(10, (1,) * 10, (1,) * 10, 100)


def method_list() -> str:
    """All methods with their role, source, cost relative to cross-entropy, and what they must be told."""
    told = {
        option_name(name, option): example
        for name, entry in METHODS.items()
        for option, example in entry.method.told.items()
    }
    options = MethodOptions(**told)
    rows = [("method", "for", "source", "networks", "forwards", "bytes", "epochs", "must be told")]
    for name, entry in METHODS.items():
        method = build_method(name, _FACTS, options)
        stage = method.second_stage
        flags = (f"--{option_name(name, option).replace('_', '-')}" for option in entry.method.told)
        rows.append(
            (
                name,
                "-" if entry.robust_to == "nothing" else entry.robust_to,
                entry.source,
                str(method.networks),
                f"{method.forward_passes:g}",
                str(bytes_per_example(method, _FACTS.num_classes)),
                f"{1 + (stage.epochs / _FACTS.epochs if stage else 0):g}",
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
