"""Training: the step, its mapping over devices, the loop, checkpoints."""

from dsink_jax.training.arguments import (
    DeviceData,
    PredictionNumbers,
    Predictor,
    Standardization,
    StepNumbers,
    StepProgram,
    TrainState,
)
from dsink_jax.training.checkpoint import Checkpoint, Checkpointer, load_variables
from dsink_jax.training.epoch_metrics import TrainingDivergedError
from dsink_jax.training.loop import TrainingStoppedError, train
from dsink_jax.training.optimizer import OptimizerSettings, build_optimizer
from dsink_jax.training.parallel import (
    AXIS,
    parallel_predict_step,
    parallel_train_step,
    replicate,
    sharded_train_step,
)
from dsink_jax.training.predict import predict
from dsink_jax.training.progress import BarProgress, LineProgress, Progress, SilentProgress, make_progress
from dsink_jax.training.settings import TrainingSettings, first_stage_settings
from dsink_jax.training.step import create_state, make_predict_step, make_train_step, repeat_step
from dsink_jax.training.together import can_train_together, train_together
from dsink_jax.training.trained import Auxiliaries, TrainedModel

__all__ = [
    "AXIS",
    "Auxiliaries",
    "BarProgress",
    "Checkpoint",
    "Checkpointer",
    "DeviceData",
    "LineProgress",
    "OptimizerSettings",
    "PredictionNumbers",
    "Predictor",
    "Progress",
    "SilentProgress",
    "Standardization",
    "StepNumbers",
    "StepProgram",
    "TrainState",
    "TrainedModel",
    "TrainingDivergedError",
    "TrainingSettings",
    "TrainingStoppedError",
    "build_optimizer",
    "can_train_together",
    "create_state",
    "first_stage_settings",
    "load_variables",
    "make_predict_step",
    "make_progress",
    "make_train_step",
    "parallel_predict_step",
    "parallel_train_step",
    "predict",
    "repeat_step",
    "replicate",
    "sharded_train_step",
    "train",
    "train_together",
]
