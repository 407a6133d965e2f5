"""Trainings that are stopped and go on end as if they had not been, whatever their method keeps."""

import jax
import numpy as np
import pytest

from dsink_jax.methods import (
    CoTeaching,
    DivideMix,
    EarlyLearningRegularization,
    TransportReweighting,
)
from dsink_jax.training import Checkpointer
from tiny_training import assert_equal_trees, tiny_model, train

COUNTS = (15, 15, 15, 15)
PRIOR = (0.25,) * 4
EPOCHS = 4
# With the epoch after which they are stopped, before it is saved: what is there is the epoch before.
CASES = {
    "elr": (EarlyLearningRegularization(), 3),
    "dividemix": (DivideMix(PRIOR, EPOCHS), 3),
    "coteaching, at the estimate": (CoTeaching(EPOCHS, "estimated"), 2),
    "coteaching, after it": (CoTeaching(EPOCHS, "estimated"), 3),
    "ot_reweighting": (TransportReweighting(COUNTS, EPOCHS, 2, "observed", share=1.0), 3),
}


class StoppedError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_resumed_training_is_bit_identical_to_an_undisturbed_one(case, small_data, cpus, tmp_path):
    method, last = CASES[case]
    # Labels in part wrong, so that there is something to estimate and divide.
    labels = np.where(np.arange(60) % 4 == 0, (small_data.labels + 1) % 4, small_data.labels)
    data = small_data._replace(labels=labels.astype(np.int32))
    options = {}
    if method.second_stage is not None:
        images = small_data.images[:1].astype(np.float32)
        start = tiny_model(method).init(jax.random.key(1), images)
        options = {"start_from": jax.device_get(start), "state_dtype": "float16"}
    whole = train(method, data, cpus[:1], EPOCHS, **options)

    def stop(record):
        if record["epoch"] == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(method, data, cpus[:1], EPOCHS, checkpointer=Checkpointer(tmp_path), on_record=stop, **options)
    seen = []
    resumed = train(
        *(method, data, cpus[:1], EPOCHS),
        checkpointer=Checkpointer(tmp_path),
        on_record=lambda record: seen.append(record["epoch"]),
        **options,
    )
    assert seen == list(range(last, EPOCHS + 1))
    assert resumed.history == whole.history
    assert_equal_trees(resumed.variables, whole.variables)
