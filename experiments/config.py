"""The settings of a run: one flat frozen dataclass, two presets."""

import dataclasses
import hashlib
import json
import pathlib
import unicodedata
from typing import Any, Literal

import jax

from dsink_jax.data.noise import HUMAN_KINDS, NoiseKind, check_noise
from dsink_jax.errors import InputError, check_known
from dsink_jax.flags import check_local_flags, flag
from dsink_jax.methods import METHODS, build_method
from dsink_jax.methods.distillation import LossScale
from dsink_jax.methods.docstrings import attribute_help
from dsink_jax.methods.registry import all_options
from dsink_jax.models import check_model_name
from dsink_jax.paths import check_local_path
from dsink_jax.recipe import AuxiliaryPredictions
from dsink_jax.training import OptimizerSettings, TrainingSettings
from dsink_jax.training.optimizer import Schedule
from experiments.method_flags import METHOD_FLAGS

# Baselines that are no methods by name.
NAIVE, NAIVE_TUNED = "naive_distillation", "naive_tuned"
ADJUSTED, ENSEMBLE = "noise_robust_adjusted", "ensemble"
TUNED_NAIVE_ALPHA, TUNED_NAIVE_NOISE_WEIGHT = 10.0, 0.7

_LARGEST, _BOUNDED = 2**20, ("epochs", "batch_size", "max_iterations")  # beyond are slips
_NO_TEXT = {"Cc", "Cs"}  # Unicode categories: control characters, and bytes that are no UTF-8

# Settings that may differ between a run and its continuation: they change where, not what.
PLACE = (
    *("run_dir", "data_dir", "download", "devices", "checkpoint_every", "checkpoint_minutes"),
    *("keep_checkpoints", "steps_per_dispatch", "streaming", "coordinator", "process_count", "process_index"),
)


@dataclasses.dataclass(frozen=True)
class _Config:
    """Trains two auxiliary models on long-tailed, mislabelled images, then the D-SINK target and baselines.

    The same command again goes on where it was stopped, or says that it is done. `--list-methods` prints the
    methods and ends.
    """

    dataset: str
    """digits, cifar10, cifar100, or an .npz with train_images, train_labels, test_images, test_labels."""
    model: str
    """Network of all models: {small,medium,wide}_cnn, resnet{8,20,32}, preact_resnet18."""
    epochs: int
    """Passes over the training set, the same for every model."""
    batch_size: int
    """Examples a step over all devices."""
    learning_rate: float
    """Highest learning rate of SGD with momentum."""
    schedule: Schedule
    """constant; cosine to 0; step: a tenth after half, a hundredth after three quarters."""
    imbalance_ratio: float
    """Largest over smallest class, by true label. 1 keeps every image."""
    crop_padding: int
    """Zero pixels around an image before a random crop; 0 for no crop."""
    flip: bool
    """Whether to mirror training images at random."""

    data_dir: pathlib.Path | None = None
    """Folder with prepared TFDS data or CIFAR files; default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    download: bool = True
    """Whether to download a data set that is not in the folder."""
    run_dir: pathlib.Path | None = None
    """Folder of the run; default runs/ and a name made of all settings."""
    corruption_file: pathlib.Path | None = None
    """Read the corrupted set from this corruption.npz; ratio, noise and data seed must be the file's."""
    limit_train: int | None = None
    """Use only this many training images, an equal share of every class, before the long tail."""
    limit_test: int | None = None
    """Use only this many test images, an equal share of every class."""
    test_part: Literal["all", "tuning", "report"] = "all"
    """all; or a half of each class, drawn by a fixed seed: tuning, to choose settings by; report, to tell."""

    noise: NoiseKind = "symmetric"
    """Kind of label noise. symmetric counts the true class in; symmetric_others does not."""
    noise_rate: float | None = None
    """Nominal noise rate in [0, 1]; default 0.4. Human labels come as they are."""
    validation_share: float = 0.0
    """Share of the corrupted training images to hold out, with their observed labels, in [0, 0.5]. The best
    checkpoint by accuracy on them is kept and reported; test images never choose."""
    map_seed: int = 1
    """Seed of the class map of asymmetric noise; 1 and 25 are the published ones."""
    human_labels: pathlib.Path | None = None
    """File with human labels in original order (.npz or .npy); default: looked for in the data folder."""
    seed: int = 0
    """Seed of training: initial parameters, order, augmentation."""
    data_seed: int = 0
    """Seed of the corrupted set: long tail and noise."""

    imbalance_method: str = "logit_adjustment"
    """Method of the imbalance-robust auxiliary model f_L."""
    noise_method: str = "elr"
    """Method of the noise-robust auxiliary model f_N."""
    base: str = "logit_adjustment"
    """Method whose loss D-SINK and naive distillation are added to: any."""
    baselines: str = "cross_entropy,naive,noise_robust_adjusted"
    """Further models, separated by commas: any method, naive, naive_tuned (weights chosen on other seeds),
    noise_robust_adjusted (f_N with adjusted logits), ensemble (of f_L and f_N). none for none."""
    alpha: float = 10.0
    """Weight of the D-SINK loss."""
    loss_scale: LossScale = "bounded"
    """sum: base + alpha * dsink. bounded: the same divided by max(1, (1 + alpha) / 2)."""
    warmup_epochs: float = 0.0
    """Epochs before the D-SINK loss sets in."""
    ramp_epochs: float = 0.0
    """Epochs in which its weight then grows to alpha."""
    auxiliary_predictions: AuxiliaryPredictions = "online"
    """online: auxiliaries see the target's augmented images; cached: each image as it is once, looked up;
    out_of_fold: the same by models that were trained on other images, once for each fold."""
    folds: int = 5
    """Parts that the training set is split into for out_of_fold."""
    average_decay: float | None = None
    """Share of a moving average of the target's parameters kept a step, in (0, 1); it then predicts by it."""
    threshold: float = 1e-6
    """L1 error of the class marginal at which Sinkhorn stops."""
    max_iterations: int = 500
    """Limit of Sinkhorn iterations."""
    epsilon: float = 2.0
    """Weight of the entropy in D-SINK's transport; 2 is what its two divergences come to."""
    naive_alpha: float = 10.0
    """Weight of the distillation loss of naive distillation."""
    naive_noise_weight: float = 0.5
    """Share of f_N in it; f_L has the rest."""

    prior: Literal["observed", "clean", "uniform"] = "observed"
    """Class counts that methods may use: of observed labels; of true labels, which real data does not tell;
    or none."""
    posthoc_prior: Literal["predicted", "counts"] = "predicted"
    """Prior of the baseline noise_robust_adjusted: f_N's mean prediction on the training set, or the counts
    that methods may use."""
    state_dtype: Literal["float32", "float16"] = "float32"
    """Type in which methods keep state of each example."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """How parameters are stepped; adamw has decoupled weight decay."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""
    weight_decay: float = 5e-4
    """Weight decay of all parameters."""
    final_norm: bool = True
    """Normalisation and ReLU after the last block of preact_resnet18; TABASCO has none."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters are float32."""
    devices: int | None = None
    """Number of devices; default all of this machine."""
    steps_per_dispatch: int | None = None
    """Training steps in one call to the device; default: 1 on CPUs, 8 on accelerators."""
    streaming: Literal["auto", "on", "off"] = "auto"
    """Whether training images are read batch by batch, not kept on every device; auto: if they do not fit."""
    evaluate_every: int = 1
    """Epochs between evaluations."""
    evaluate_training: bool = False
    """Whether an evaluation predicts the training set too: how many wrong labels are corrected, memorised."""
    checkpoint_every: int = 10
    """Epochs between checkpoints. SIGTERM and Ctrl-C save one too, in the middle of an epoch."""
    checkpoint_minutes: float | None = None
    """Minutes after which to save in the middle of an epoch too; default: never."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints of a model to keep."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is not a number: stop the training, or skip the step."""

    coordinator: str | None = None
    """Several processes: host:port of the first, or auto to ask the launcher (SLURM, Open MPI, TPU, GKE)."""
    process_count: int | None = None
    """Several processes: how many; each is started with the same flags but its own index."""
    process_index: int | None = None
    """Several processes: which of them this is, from 0."""

    def __post_init__(self):
        self._check_text()
        check_model_name(self.model)
        for name in self.baseline_names:
            check_known("method", name, (*METHODS, NAIVE, NAIVE_TUNED, ADJUSTED, ENSEMBLE))
        check_noise(self.noise, self.noise_rate)
        self._check_noise_fits()
        for name in ("evaluate_every", "checkpoint_every", "keep_checkpoints", *_BOUNDED):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        if self.coordinator is None and (self.process_count, self.process_index) != (None, None):
            raise InputError("--process-count and --process-index need --coordinator host:port.")
        for name in _BOUNDED:
            self._check(name, getattr(self, name) <= _LARGEST, f"at most {_LARGEST}")
        for name in ("alpha", "naive_alpha", "warmup_epochs", "ramp_epochs", "crop_padding"):
            self._check(name, 0 <= getattr(self, name) < float("inf"), "at least 0")
        for name in ("seed", "data_seed", "map_seed"):
            self._check(name, 0 <= getattr(self, name) < 2**32, "in [0, 2^32)")
        self._check("validation_share", 0 <= self.validation_share <= 0.5, "in [0, 0.5]")
        self._check("naive_noise_weight", 0 <= self.naive_noise_weight <= 1, "in [0, 1]")
        self._check("threshold", 0 < self.threshold < float("inf"), "positive")
        self._check("epsilon", 0 < self.epsilon < float("inf"), "positive")
        self._check("imbalance_ratio", 1 <= self.imbalance_ratio < float("inf"), "at least 1")
        self._check("folds", self.folds >= 2, "at least 2")
        self._check("average_decay", self.average_decay is None or 0 < self.average_decay < 1, "in (0, 1)")
        minutes = self.checkpoint_minutes
        self._check("checkpoint_minutes", minutes is None or 0 < minutes < float("inf"), "positive")
        for name in ("limit_train", "limit_test", "devices", "steps_per_dispatch"):
            self._check(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        _ = self.training_settings  # checks its own ranges
        self._check_methods()

    def _check_text(self):
        """Refuses what can be neither a path of this machine nor printed."""
        check_local_flags(self)
        check_local_path(self.dataset, flag("dataset"))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str | pathlib.Path) and not _NO_TEXT.isdisjoint(
                map(unicodedata.category, str(value))
            ):
                raise InputError(
                    f"{flag(field.name)} must be text without control characters, got {str(value)!a}."
                )

    def _check(self, name, good, expected):
        if not good:
            raise InputError(f"{flag(name)} must be {expected}, got {getattr(self, name)}.")

    def _check_noise_fits(self):
        if self.noise.startswith("human_"):
            if self.noise_rate is not None:
                raise InputError(f"--noise {self.noise} comes with its own rate: leave out --noise-rate.")
            known = HUMAN_KINDS.get(self.dataset, ())
            if self.noise not in known:
                fit = " or ".join(f"--dataset {d}" for d, kinds in HUMAN_KINDS.items() if self.noise in kinds)
                raise InputError(f"--noise {self.noise} needs {fit}, got --dataset {self.dataset}.")
            if self.limit_train is not None:
                raise InputError("--limit-train does not go with human labels, which cover all images.")
        elif self.human_labels is not None:
            raise InputError(
                "--human-labels goes with human noise: give --noise human_worse, or leave it out."
            )

    def _check_methods(self):
        """Builds each method once, and refuses options of methods that are not trained."""
        for name in sorted(self.method_names):
            for option, example in METHODS[name].method.required.items() if name in METHODS else ():
                if self.options_of(name)[option] is None:
                    own, what = flag(f"{name}_{option}"), option.replace("_", " ")
                    raise InputError(
                        f"{name} must be given its {what}: {own}, such as {own} {example}.\n"
                        f"Meaning: {attribute_help(METHODS[name].method)[option]}"
                    )
            build_method(name, self.options_of(name))
        for option in all_options():
            if option.method in self.method_names or getattr(self, option.full_name) == option.field.default:
                continue
            raise InputError(
                f"{flag(option.full_name)} is an option of {option.method}, which is not trained.\nLeave it "
                f"out, or choose {option.method}: --imbalance-method, --noise-method, --base, --baselines."
            )
        if self.noise.startswith("human_") and getattr(self, "forward_correction_matrix", "") == "known":
            raise InputError(
                "forward_correction: the transition matrix of human labels is not known. "
                "Give --forward-correction-matrix estimated."
            )

    def options_of(self, method: str) -> dict[str, Any]:
        """The options of a method by name; an unknown one has none."""
        return {one.name: getattr(self, one.full_name) for one in all_options() if one.method == method}

    @property
    def method_names(self) -> set[str]:
        """Names of all methods that are trained."""
        baselines = set(self.baseline_names) - {NAIVE, NAIVE_TUNED, ADJUSTED, ENSEMBLE}
        return {self.imbalance_method, self.noise_method, self.base, *baselines}

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """Names of the baselines as they stand in results.json."""
        names = [name.strip() for name in self.baselines.split(",")]
        names = [NAIVE if name == "naive" else name for name in names if name not in ("", "none")]
        return tuple(dict.fromkeys(names))

    @property
    def synthetic_rate(self) -> float:
        """The noise rate to draw with."""
        return 0.4 if self.noise_rate is None else self.noise_rate

    @property
    def training_settings(self) -> TrainingSettings:
        """How long and in what steps to train a model of one stage, without augmentation."""
        how = self.learning_rate, self.schedule, self.momentum, self.nesterov, self.weight_decay
        optimizer = OptimizerSettings(self.optimizer, *how)
        return TrainingSettings(
            self.epochs,
            self.batch_size,
            optimizer,
            evaluate_every=self.evaluate_every,
            checkpoint_every=self.checkpoint_every,
            checkpoint_minutes=self.checkpoint_minutes,
            steps_per_dispatch=self.steps_per_dispatch,
            state_dtype=self.state_dtype,
            on_nan=self.on_nan,
        )

    def term_settings(self, alpha: float) -> dict[str, Any]:
        """How a distillation term of weight `alpha` joins the base loss."""
        return {
            "alpha": alpha,
            "warmup_epochs": self.warmup_epochs,
            "ramp_epochs": self.ramp_epochs,
            "loss_scale": self.loss_scale,
        }

    @property
    def directory(self) -> pathlib.Path:
        """The run directory."""
        if self.run_dir is not None:
            return self.run_dir
        data = pathlib.Path(self.dataset).stem
        noise = self.noise if self.noise.startswith("human_") else f"{self.noise}-{self.synthetic_rate:g}"
        # What is left at its default is left out, so that a new setting does not give old runs a new name.
        defaults = default_settings()
        settings = {
            name: value
            for name, value in self.settings().items()
            if name not in PLACE and (name not in defaults or value != defaults[name])
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{data}-ratio-{self.imbalance_ratio:g}-{noise}-{self.model}-seed-{self.seed}-{digest}"
        return pathlib.Path("runs") / name

    def settings(self) -> dict[str, Any]:
        """All settings as JSON holds them."""
        # Options of other methods do not belong to the run: new methods and defaults leave it as it is.
        other = {option.full_name for option in all_options() if option.method not in self.method_names}
        values = {name: v for name, v in dataclasses.asdict(self).items() if name not in other}
        return {name: str(v) if isinstance(v, pathlib.Path) else v for name, v in values.items()}

    @property
    def processes(self) -> tuple[str | None, int | None, int | None]:
        """Coordinator, number and index of the processes; all None where the launcher is to be asked."""
        coordinator = None if self.coordinator == "auto" else self.coordinator
        return coordinator, self.process_count, self.process_index

    def local_devices(self) -> list[jax.Device]:
        """The devices to use."""
        available = jax.local_devices()
        if self.devices is not None and self.devices > len(available):
            raise InputError(f"--devices {self.devices}: this machine has {len(available)}.")
        if self.devices is not None and self.devices < len(available) and jax.process_count() > 1:
            raise InputError(
                f"--devices {self.devices}: several processes use all their devices, {len(available)} here.\n"
                "Leave --devices out, or hide devices from JAX (CUDA_VISIBLE_DEVICES, JAX_NUM_CPU_DEVICES)."
            )
        return available[: self.devices]


# With the options of all methods behind, as flags such as `--elr-momentum`.
Config = dataclasses.make_dataclass(
    "Config",
    METHOD_FLAGS,
    bases=(_Config,),
    frozen=True,
    namespace={"__doc__": _Config.__doc__, "__module__": __name__},
)


def default_settings() -> dict[str, Any]:
    """The settings that have a default, as JSON holds them."""
    of_methods = {option.full_name for option in all_options()}
    with_default = {f.name: f.default for f in dataclasses.fields(Config) if f.name not in of_methods}
    return {name: value for name, value in with_default.items() if value is not dataclasses.MISSING}


DIGITS = Config(
    dataset="digits",
    model="small_cnn",
    epochs=250,
    batch_size=64,
    learning_rate=0.1,
    schedule="cosine",
    imbalance_ratio=10.0,
    crop_padding=1,
    flip=False,
    checkpoint_every=50,
)

CIFAR = Config(
    dataset="cifar10",
    model="preact_resnet18",
    epochs=100,
    batch_size=64,
    learning_rate=0.02,
    schedule="constant",
    imbalance_ratio=100.0,
    crop_padding=4,
    flip=True,
)
