"""Bad input ends in exit code 2 and at most two lines that name it; nothing is lost."""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import re
import shutil
import subprocess
import typing

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from bad_commands import DATA_SETS, FLAGS, HUMAN_LABELS, IMAGES, RUN_FILES, STUDIES, npz

from dsink_jax.data import ImageData, Split, corrupt, save_corruption, sources
from dsink_jax.flags import flag
from dsink_jax.methods import METHODS
from dsink_jax.methods.registry import all_options
from experiments import command_line, embeddings, help_page, label_audit
from experiments.config import CIFAR, DIGITS, Config
from experiments.dataset import read_or_draw
from experiments.run import RunModels, run
from experiments.run_directory import RunDirectory
from experiments.study import __main__ as study
from run_commands import ROOT, command

DIGITS_ONCE = functools.cache(sources._digits)
DRAWN = corrupt(np.arange(100) % 10, 10, imbalance_ratio=1, noise="symmetric", noise_rate=0.4, data_seed=0)


class TrainingBeganError(Exception):
    """Raised where a command would begin to train."""


def refuse_to_train(*_):
    raise TrainingBeganError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with files to name and a run of another configuration; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunModels, "train", refuse_to_train)
    monkeypatch.setattr(sources, "_digits", DIGITS_ONCE)
    (tmp_path / "file.npz").write_text("some text")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "of_another").mkdir()
    (tmp_path / "of_another" / "embeddings.csv").write_text("a,b\n1,2\n")
    save_corruption(tmp_path / "other.npz", DRAWN)
    make_run(dataclasses.replace(DIGITS, run_dir=tmp_path / "other", epochs=7))
    return tmp_path


def make_run(config):
    """A run directory as it is before the first model is trained."""
    with RunDirectory(config) as directory:
        directory.start(read_or_draw(config, DIGITS_ONCE()), {})
        directory.save_results({"models": {}, "data": {}})
        directory.log("target", {"epoch": 1})
        (directory.path / "checkpoints" / "target").mkdir(parents=True)
        (directory.path / "checkpoints" / "target" / "state").write_text("weights")


def content(folder):
    """Everything in a folder but who used a run directory last, and where they are unless told."""
    paths = [path for path in sorted(folder.rglob("*")) if path.name not in (".lock", "runs")]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def fails(arguments, preset=DIGITS, module=None):
    """Runs a command in this process and returns the error it ends with."""
    errors = io.StringIO()
    main = module.main if module else lambda: command_line.main(preset)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr("sys.argv", ["experiments", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2, errors.getvalue()
    check_message(errors.getvalue())
    assert errors.getvalue().startswith("error: ")
    return errors.getvalue()


def check_message(text):
    """One or two lines, without a traceback, without the frames of other libraries."""
    assert "Traceback" not in text
    lines = text.strip().splitlines()
    assert 1 <= len(lines) <= 2, text
    assert all(len(line) < 700 for line in lines), text
    assert not set(text) & set("│╭╰─") and "-----" not in text, text


def check_refused(folder, arguments, fragment, **how):
    """The error of a command holds `fragment`, and no file or run directory is another than before."""
    before = content(folder)
    assert fragment in fails(arguments, **how)
    assert content(folder) == before


@pytest.mark.parametrize("case", FLAGS)
def test_flags(case, place):
    arguments, fragment = FLAGS[case]
    arguments = arguments.split() if isinstance(arguments, str) else [*arguments]
    check_refused(place, arguments, fragment)
    check_refused(place, ["--run-dir", "other", *arguments], "")


@pytest.mark.parametrize("address", ["gs://bucket/x", "https://host/x", "file:/x"])
@pytest.mark.parametrize(
    ("name", "settings", "arguments"),
    [
        (None, Config, []),
        ("study.__main__", study.Flags, ["main"]),
        ("embeddings", embeddings.Flags, []),
        ("label_audit", label_audit.Flags, []),
    ],
)
def test_addresses_are_refused_by_every_flag_of_a_path(name, settings, arguments, address, place):
    module = name and importlib.import_module(f"experiments.{name}")
    paths = [one for one, kind in typing.get_type_hints(settings).items() if "pathlib" in str(kind)]
    assert len(paths) >= 2
    for path in paths:
        said = f"{flag(path)} {address}: only places on this machine can be used"
        check_refused(place, [*arguments, flag(path), address], said, module=module)


@pytest.mark.parametrize("case", STUDIES)
def test_studies(case, place):
    name, arguments, fragment = STUDIES[case]
    module = importlib.import_module(f"experiments.{name}")
    check_refused(place, arguments.split(), fragment, module=module)


@pytest.mark.parametrize("case", DATA_SETS)
def test_data_sets(case, place):
    data, fragment = DATA_SETS[case]
    (place / "mine.npz").write_bytes(data)
    flags = ["--dataset", "mine.npz", "--imbalance-ratio", "1"]
    check_refused(place, flags, fragment)
    # The same flags are right for the right file.
    (place / "mine.npz").write_bytes(npz())
    check_begins(flags)


def check_begins(flags):
    with pytest.raises(TrainingBeganError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["experiments", *flags])
        command_line.main(DIGITS)


@pytest.mark.parametrize("streaming", ["auto", "on"])
@pytest.mark.parametrize("part", ["train_images", "test_images"])
def test_a_run_goes_on_with_its_images_alone(part, streaming, place):
    flags = ["--dataset", "mine.npz", "--imbalance-ratio", "1", "--run-dir", "mine", "--streaming", streaming]
    data, images = place / "mine.npz", IMAGES.copy()
    data.write_bytes(npz())
    check_begins(flags)
    images[3, 2, 1] = 1  # labels and shapes are the same
    data.write_bytes(npz(**{part: images}))
    check_refused(place, flags, "on other images")
    data.write_bytes(npz())
    check_begins(flags)
    # A run from before images were looked at goes on.
    stored = json.loads((place / "mine" / "config.json").read_text())
    assert stored.pop("images")
    (place / "mine" / "config.json").write_text(json.dumps(stored))
    data.write_bytes(npz(**{part: images}))
    check_begins(flags)


@pytest.mark.parametrize("case", HUMAN_LABELS)
def test_human_labels(case, place, monkeypatch):
    images, labels = np.zeros((50_000, 1, 1, 1), np.uint8), np.arange(50_000, dtype=np.int32) % 10
    split = Split(images, labels)
    cifar = ImageData("cifar10", split, split, tuple("abcdefghij"), (0.5,), (0.5,), "a test")
    monkeypatch.setattr(sources, "_cifar_reader", lambda *_: lambda: cifar)
    name, data, fragment = HUMAN_LABELS[case]
    if data is not None:
        (place / name).write_bytes(data)
    flags = ["--dataset", "cifar10", "--noise", "human_worse", "--human-labels", name]
    check_refused(place, flags, fragment)


WRONG_SETS = {
    "index of rank 2": {"index": DRAWN.index[:, None]},
    "index in text": {"index": DRAWN.index.astype(str)},
    "index twice": {"index": np.zeros_like(DRAWN.index)},
    "no index": {"index": DRAWN.index[:0]},
    "fewer labels": {"noisy_labels": DRAWN.noisy_labels[1:]},
    "labels out of range": {"noisy_labels": DRAWN.noisy_labels + 9},
    "negative labels": {"clean_labels": DRAWN.clean_labels - 1},
    "floating labels": {"noisy_labels": DRAWN.noisy_labels / 2},
    "class map of other classes": {"class_map": DRAWN.class_map[1:]},
}


@pytest.mark.parametrize("case", WRONG_SETS)
def test_corruption_files_that_keep_their_digest(case, place):
    with np.load(place / "other.npz") as file:
        stored = dict(file)
    with contextlib.suppress(ValueError):  # no digest of text
        stored["sha256"] = dataclasses.replace(DRAWN, **WRONG_SETS[case]).sha256
    np.savez(place / "wrong.npz", **(stored | WRONG_SETS[case]))
    flags = ["--corruption-file", "wrong.npz", "--imbalance-ratio", "1"]
    check_refused(place, flags, "wrong.npz is no")


@pytest.mark.parametrize("case", RUN_FILES)
def test_run_directories(case, place):
    name, data, fragment = RUN_FILES[case]
    make_run(dataclasses.replace(DIGITS, run_dir=place / "mine"))
    (place / "mine" / name).unlink(missing_ok=True)
    if data is not None:
        (place / "mine" / name).write_bytes(data)
    check_refused(place, ["--run-dir", "mine"], fragment)


def test_a_new_directory_of_a_refused_command_is_taken_away_and_one_that_was_there_is_not(place):
    fails(["--imbalance-ratio", "1000", "--run-dir", "new"])
    assert not (place / "new").exists()
    (place / "mine").mkdir()
    fails(["--imbalance-ratio", "1000", "--run-dir", "mine"])
    assert (place / "mine").is_dir()


def test_as_a_process(place):
    arguments = ("--coordinator", "localhost:http", "--process-count", "1", "--process-index", "0")
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    check_message(done.stderr)


def test_every_setting_has_a_run_directory_of_its_own():
    changed = [
        dataclasses.replace(DIGITS, **c) for c in ({}, {"alpha": 1.0}, {"data_seed": 1}, {"base": "elr"})
    ]
    assert len({config.directory for config in changed}) == 4
    assert dataclasses.replace(DIGITS, devices=1).directory == DIGITS.directory


@pytest.mark.parametrize("preset", [DIGITS, CIFAR])
def test_help_explains_every_flag(preset):
    def printed(*arguments):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as stopped:
            command_line.parse(preset, arguments)
        assert stopped.value.code == 0
        return output.getvalue()

    fields = {field.name for field in dataclasses.fields(preset)}
    whole = printed("--help-all")
    assert all(flag(name) in whole for name in fields)
    page = printed("--help")
    assert len(page.splitlines()) <= 120 and max(map(len, page.splitlines())) <= 110
    grouped = [name for names in help_page.GROUPS.values() for name in names]
    options = {option.full_name for option in all_options()}
    assert sorted(grouped) == sorted(fields - options)
    assert all(f"  {flag(name)} " in page for name in grouped)
    # Of the options those of the methods that are chosen, and what their defaults are.
    assert "--elr-momentum" in page and "--gce-q" not in page
    page = printed("--noise-method", "gce", "--alpha=3", "-h")
    assert "--elr-momentum" not in page and re.search(r"--gce-q .*\[0\.7\]", page)


@pytest.mark.parametrize("preset", [DIGITS, CIFAR])
def test_list_of_methods(preset, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiments", "--list-methods"])
    assert command_line.main(preset) is None  # so the process ends with code 0
    lines = capsys.readouterr().out.splitlines()
    header, _, *rows = lines[: 2 + len(METHODS)]
    assert [row.split()[0] for row in rows] == list(METHODS)
    assert header.split()[:2] == ["method", "for"]
    of = dict(zip(METHODS, rows, strict=True))
    assert all(entry.source in of[name] for name, entry in METHODS.items())
    # Networks, forward passes, bytes, epochs, and what must be given.
    assert of["elr"].split()[-5:] == ["1", "1", "40", "1", "-"]
    assert of["dividemix"].split()[-5:] == ["2", "10", "8", "1", "-"]
    assert of["crt"].split()[-2:] == ["1.1", "-"]
    assert of["coteaching"].split()[-1] == "--coteaching-noise-rate"
    for word in ("naive_tuned", "noise_robust_adjusted", "ensemble", "--help"):
        assert word in "\n".join(lines)


# Fuzzing of the command line: the values are read and all is checked that is checked before training.
FIELDS = sorted(
    flag(field.name) for field in dataclasses.fields(DIGITS) if field.name not in ("run_dir", "download")
)
WORDS = (
    "",
    "0",
    "1",
    "-1",
    "2",
    "0.5",
    "1e400",
    "nan",
    "-inf",
    "none",
    "None",
    "True",
    "auto",
    "--",
    "~",
    "..",
)
NAMES = (
    "digits",
    "cifar100",
    "file.npz",
    "folder.npz",
    "other.npz",
    *METHODS,
    "human_noisy",
    "joint",
    "clean",
)
VALUES = st.one_of(
    st.sampled_from(WORDS + NAMES),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.text(max_size=20),
    st.text(min_size=1, max_size=3).map(lambda text: text * 2000),
)
PAIRS = st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=4)


@pytest.mark.slow
@hypothesis.settings(max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(pairs=PAIRS)
@hypothesis.example(pairs=[("--dataset", "a\0b.npz")])
@hypothesis.example(pairs=[("--epochs", "9" * 5000)])
def test_any_flags_run_or_are_refused(place, pairs):
    arguments = [part for pair in pairs for part in pair]
    before = content(place)
    errors = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(errors),
            command_line.errors_for_people(),
        ):
            config = command_line.parse(DIGITS, [*arguments, "--no-download", "--run-dir", "fuzzed"])
            run(config)
    except TrainingBeganError:
        shutil.rmtree("fuzzed")
    except SystemExit as stopped:
        assert stopped.code == 2 or (stopped.code == 0 and {"-h", "--help"} & {*arguments})
        if stopped.code:
            check_message(errors.getvalue())
        assert content(place) == before
