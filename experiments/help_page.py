"""`--help` of an experiment: its flags in groups, a line each; `--help-all` has their whole texts."""

import ast
import dataclasses
import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from dsink_jax.flags import flag
from dsink_jax.methods.docstrings import attribute_help
from dsink_jax.methods.registry import METHODS, all_options
from experiments import config

GROUPS = {
    "data": (
        *("dataset", "data_dir", "download", "limit_train", "limit_test", "test_part", "validation_share"),
        *("crop_padding", "flip"),
    ),
    "corruption": (
        *("imbalance_ratio", "noise", "noise_rate", "map_seed", "human_labels", "data_seed"),
        "corruption_file",
    ),
    "models and methods": (
        *("model", "final_norm", "imbalance_method", "noise_method", "base", "baselines", "prior"),
        *("posthoc_prior", "state_dtype"),
    ),
    "D-SINK": (
        *("alpha", "loss_scale", "warmup_epochs", "ramp_epochs", "auxiliary_predictions", "folds"),
        *("average_decay", "threshold", "max_iterations", "epsilon", "naive_alpha", "naive_noise_weight"),
    ),
    "optimisation": (
        *("epochs", "batch_size", "learning_rate", "schedule", "optimizer", "momentum", "nesterov"),
        *("weight_decay", "compute_dtype", "seed", "on_nan"),
    ),
    "devices and processes": (
        *("devices", "steps_per_dispatch", "streaming", "coordinator", "process_count", "process_index"),
    ),
    "output": (
        *("run_dir", "evaluate_every", "evaluate_training", "checkpoint_every", "checkpoint_minutes"),
        "keep_checkpoints",
    ),
}
_METHOD_FLAGS = ("imbalance_method", "noise_method", "base", "baselines")


def help_page(default: config.Config, arguments: Sequence[str], command: str) -> str:
    """The page, for a preset; options of methods are those of the methods that the flags choose.

    Args:
      default: the preset.
      arguments: flags that are given beside `--help`.
      command: how this is started.
    """
    width = shutil.get_terminal_size((100, 24)).columns
    said = _texts()
    lines = [
        f"usage: {command} [FLAG VALUE ...]",
        "",
        "Trains f_L and f_N, then the target and baselines. The same command goes on where it stopped.",
    ]
    for title, names in GROUPS.items():
        lines += ["", title]
        lines += [_line(name, said[name], getattr(default, name), width) for name in names]
    chosen = sorted(_chosen(default, arguments))
    lines += ["", f"options of {', '.join(chosen)}"]
    for option in all_options():
        if option.method in chosen:
            text = attribute_help(METHODS[option.method].method)[option.name]
            lines.append(_line(option.full_name, text, option.field.default, width))
    lines += [
        "",
        "--config FILE takes flags from a JSON file, such as the config.json of a run; flags after it win.",
        "--help-all prints the whole texts and the options of all methods; --list-methods the methods.",
    ]
    return "\n".join(lines)


def _line(name, text, default, width):
    shown = "none" if default is None or default is dataclasses.MISSING else default
    start = f"  {flag(name):<26} "
    end = f" [{shown}]" if not isinstance(shown, bool) else f" [{'yes' if shown else 'no'}]"
    sentence = re.split(r"(?<=[a-z)])\. ", text.replace("\n", " "))[0].rstrip(".")
    room = max(width - len(start) - len(end), 24)
    return start + textwrap.shorten(sentence, room, placeholder=" ...") + end


def _texts() -> dict[str, str]:
    """What stands under each field of the settings."""
    tree = ast.parse(inspect.getsource(config._Config)).body[0]
    return dict(_documented(tree.body))


def _documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            yield field.target.id, inspect.cleandoc(ast.literal_eval(text.value))


def _chosen(default, arguments):
    given = {name: getattr(default, name) for name in _METHOD_FLAGS}
    for i, argument in enumerate(arguments):
        name, _, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if argument.startswith("--") and name in given:
            given[name] = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
    return {one for names in given.values() for one in names.split(",")} & METHODS.keys()
