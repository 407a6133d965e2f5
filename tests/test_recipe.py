"""The order of work: who is trained on what, in which order, and what targets look up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blobs import blobs, corrupted_blobs
from dsink_jax import InputError, recipe
from dsink_jax.estimator.inputs import make_standardization
from dsink_jax.methods import (
    AdjustedNoiseRobust,
    ClassBalanced,
    ClassifierRetraining,
    CrossEntropy,
    DSink,
    Ensemble,
    LogitAdjustment,
    TransportReweighting,
)
from dsink_jax.models import make_model
from dsink_jax.recipe import (
    IMBALANCE_ROBUST,
    NOISE_ROBUST,
    TARGET,
    ModelSpec,
    Recipe,
    Watching,
    auxiliary_specs,
    stream_seed,
)
from dsink_jax.training import OptimizerSettings, TrainingSettings, TrainingStoppedError
from dsink_jax.training_set import TrainingSet, make_folds

SETTINGS = TrainingSettings(3, 32, OptimizerSettings(learning_rate=0.1))


@pytest.fixture(scope="module")
def data():
    vectors, labels = corrupted_blobs()
    return TrainingSet(vectors, labels.astype(np.int32), 4, standardization=make_standardization(vectors))


def linear(method):
    return make_model("linear", 4, classifier=method.classifier, networks=method.networks)


def auxiliaries(noise_robust=CrossEntropy(), imbalance_robust=LogitAdjustment()):  # noqa: B008  (frozen)
    return auxiliary_specs(noise_robust=noise_robust, imbalance_robust=imbalance_robust)


def make(data, specs=(), *, target=None, seed=3, settings=SETTINGS, **how):
    specs = [*auxiliaries(), *specs]
    if target is not None:
        specs.append(ModelSpec(TARGET, LogitAdjustment(), "target", DSink(3.0), auxiliary_predictions=target))
    return Recipe(data, specs, linear, settings, seed=seed, devices=jax.devices()[:1], **how)


def kernels(trained):
    return trained.variables["params"]["classifier"]["kernel"]


def spied(monkeypatch):
    """The calls of `train`, which trains all the same."""
    calls, train = [], recipe.train

    def spy(model, method, data, settings, **how):
        calls.append((method, data, settings, how))
        return train(model, method, data, settings, **how)

    monkeypatch.setattr(recipe, "train", spy)
    return calls


def test_auxiliaries_come_before_the_target_and_each_is_trained_once(data, monkeypatch):
    calls = spied(monkeypatch)
    work = make(data, target="online")
    target = work.train(TARGET)
    assert [type(call[0]) for call in calls] == [CrossEntropy, LogitAdjustment, LogitAdjustment]
    assert work.train_all()[TARGET] is target and len(calls) == 3
    # Streams of the seed of their own; f_N first among what the term is given.
    streams = (recipe.NOISE_STREAM, recipe.IMBALANCE_STREAM, recipe.COMMON_STREAM)
    assert [call[3]["seed"] for call in calls] == [stream_seed(3, stream) for stream in streams]
    given = calls[2][3]["auxiliaries"]
    assert given.noise_robust is work.train(NOISE_ROBUST)
    assert given.imbalance_robust is work.train(IMBALANCE_ROBUST)


def test_target_and_baselines_differ_by_their_loss_alone(data):
    work = make(data, [ModelSpec("plain", CrossEntropy()), ModelSpec("again", CrossEntropy())])
    assert (kernels(work.train("plain")) == kernels(work.train("again"))).all()
    assert (kernels(work.train("plain")) != kernels(work.train(NOISE_ROBUST))).any()


def test_models_put_together_from_the_auxiliaries(data):
    specs = [
        ModelSpec("ensemble", Ensemble()),
        ModelSpec("adjusted", AdjustedNoiseRobust()),
    ]
    work = make(data, specs)
    inputs, _ = blobs(50, seed=4)
    inputs = inputs.astype(np.float32)
    pair = [work.logits(name, inputs) for name in (NOISE_ROBUST, IMBALANCE_ROBUST)]
    soft = [np.exp(one - one.max(1, keepdims=True)) for one in pair]
    mean = sum(one / one.sum(1, keepdims=True) for one in soft) / 2
    found = np.exp(work.logits("ensemble", inputs))
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), mean, atol=1e-5)
    training = work.training_logits(NOISE_ROBUST).astype(float)
    prior = np.exp(training) / np.exp(training).sum(1, keepdims=True)
    shifted = pair[0] - np.log(prior.mean(0))
    differences = work.logits("adjusted", inputs) - shifted
    np.testing.assert_allclose(differences - differences[:, :1], 0, atol=1e-4)
    assert set(work.train_all()) == {NOISE_ROBUST, IMBALANCE_ROBUST}


def test_cached_predictions_are_those_for_the_inputs_as_they_are(data, monkeypatch):
    calls = spied(monkeypatch)
    work = make(data, target="cached")
    work.train(TARGET)
    looked_up = calls[-1][1]
    assert calls[-1][3]["auxiliaries"] is None and len(calls) == 3
    for table, name in (
        (looked_up.noise_robust_logits, NOISE_ROBUST),
        (looked_up.imbalance_robust_logits, IMBALANCE_ROBUST),
    ):
        np.testing.assert_array_equal(table, work.logits(name, data.inputs))


def test_without_augmentation_cached_is_online(data):
    """The auxiliaries run on the very inputs that they were asked for."""
    online, cached = (make(data, target=how).train(TARGET) for how in ("online", "cached"))
    np.testing.assert_allclose(kernels(online), kernels(cached), rtol=1e-4, atol=1e-5)


def test_out_of_fold_is_what_folds_trained_by_hand_say(data, monkeypatch):
    calls = spied(monkeypatch)
    work = make(data, target="out_of_fold", folds=3)
    work.train(TARGET)
    *of_folds, (_, looked_up, _, _) = list(calls)
    fold = make_folds(data.labels, 3, 3)
    for table, name in (
        (looked_up.noise_robust_logits, NOISE_ROBUST),
        (looked_up.imbalance_robust_logits, IMBALANCE_ROBUST),
    ):
        for number in range(3):
            part = data.rows(np.flatnonzero(fold != number))
            by_hand = make(part).logits(name, data.inputs[fold == number])
            np.testing.assert_allclose(table[fold == number], by_hand, rtol=1e-5, atol=1e-5)
    # No teacher has seen an example that it is asked about.
    assert len(of_folds) == 6
    for number, (_, seen, _, _) in enumerate(of_folds):
        own = {row.tobytes() for row in data.inputs[fold == number % 3]}
        assert len(seen.inputs) == (fold != number % 3).sum()
        assert not own & {row.tobytes() for row in seen.inputs}


def test_labels_of_a_fold_do_not_change_what_is_said_of_it(data):
    """Two examples of a fold exchange their labels; the folds stay as they are."""
    fold = make_folds(data.labels, 3, 3)
    first = np.flatnonzero((fold == 0) & (data.labels == 0))[0]
    second = np.flatnonzero((fold == 0) & (data.labels == 1))[0]
    labels = data.labels.copy()
    labels[[first, second]] = labels[[second, first]]
    changed = dataclasses.replace(data, labels=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingSet, "make_folds", lambda self, folds, seed: fold)
        before, after = (make(one, folds=3).out_of_fold(NOISE_ROBUST) for one in (data, changed))
    assert (before.logits[fold == 0] == after.logits[fold == 0]).all()
    assert (before.logits[fold == 1] != after.logits[fold == 1]).any()


@pytest.mark.slow
def test_a_class_that_a_fold_has_not_seen():
    vectors, labels = blobs(61, seed=0, num_classes=3)
    labels = np.append(labels[:60] % 2, 2).astype(np.int32)
    data = TrainingSet(vectors.astype(np.float32), labels, 3)
    specs = auxiliaries()
    specs.append(ModelSpec(TARGET, CrossEntropy(), "target", DSink(1.0), auxiliary_predictions="out_of_fold"))

    def model(method):
        return make_model("linear", 3)

    work = Recipe(data, specs, model, SETTINGS, seed=0, devices=jax.devices()[:1], folds=2)
    found = work.out_of_fold(NOISE_ROBUST)
    assert found.seen.tolist() == [True] * 60 + [False]
    fold = make_folds(labels, 2, 0)
    assert (np.isneginf(found.logits) == np.outer(fold == fold[60], [False, False, True])).all()
    target = work.train(TARGET)  # which looks them up as numbers
    assert np.isfinite(kernels(target)).all()
    assert np.isfinite([record["train"]["loss"] for record in target.history]).all()


def test_what_a_fold_lacks_is_said_before_anything_is_trained(monkeypatch):
    vectors, labels = blobs(41, seed=0)
    data = TrainingSet(vectors.astype(np.float32), np.append(labels[:40] % 3, 3).astype(np.int32), 4)
    monkeypatch.setattr(recipe, "train", None)
    specs = auxiliaries(imbalance_robust=ClassBalanced())
    specs.append(ModelSpec(TARGET, CrossEntropy(), "target", DSink(1.0), auxiliary_predictions="out_of_fold"))
    with pytest.raises(
        InputError, match=r"Without fold \d of 5: imbalance_robust \(ClassBalanced\): .*class 3"
    ):
        Recipe(data, specs, linear, SETTINGS, seed=0, devices=jax.devices()[:1])
    specs[0] = ModelSpec(IMBALANCE_ROBUST, TransportReweighting(1, "clean"), "auxiliary")
    with pytest.raises(InputError, match="Clean labels are not known"):
        Recipe(data, specs, linear, SETTINGS, seed=0, devices=jax.devices()[:1])
    with pytest.raises(InputError, match="target needs the model noise_robust"):
        Recipe(data, specs[2:], linear, SETTINGS, seed=0, devices=jax.devices()[:1])


def test_a_second_stage_starts_from_the_first(data, monkeypatch):
    calls = spied(monkeypatch)
    work = make(data, [ModelSpec("crt", ClassifierRetraining())])
    trained = work.train("crt")
    first, second = calls
    assert type(first[0]) is CrossEntropy and second[0] == ClassifierRetraining()
    assert first[3]["start_from"] is None and second[3]["start_from"] is not None
    assert first[3]["seed"] == second[3]["seed"] == stream_seed(3, recipe.COMMON_STREAM)
    assert trained.seconds > 0


def test_a_meta_set_is_left_out_of_the_order(data):
    method = TransportReweighting(3, "observed")
    drawn = data.meta_set(method)
    assert np.bincount(drawn["meta_labels"]).tolist() == [3, 3, 3, 3]
    assert (data.labels[drawn["meta_index"]] == drawn["meta_labels"]).all()
    again = dataclasses.replace(data, meta_seed=1).meta_set(method)
    assert (again["meta_index"] != drawn["meta_index"]).any()
    clean = np.roll(data.labels, 1)
    true = dataclasses.replace(data, clean_labels=clean).meta_set(TransportReweighting(3, "clean"))
    assert (clean[true["meta_index"]] == true["meta_labels"]).all()
    assert data.meta_set(CrossEntropy()) == {}


def test_the_average_is_that_of_the_parameters_after_each_step(data, monkeypatch):
    """A moving average in NumPy, over parameters of trainings that end after each step in turn."""
    decay, steps = 0.6, 4
    whole = dataclasses.replace(SETTINGS, epochs=steps, batch_size=512, end_after=None)
    after = [
        kernels(make(data, settings=dataclasses.replace(whole, end_after=k)).train(NOISE_ROBUST))
        for k in range(1, steps + 1)
    ]
    spec = ModelSpec("averaged", CrossEntropy(), stream=recipe.NOISE_STREAM, average_decay=decay)
    averaged = kernels(make(data, [spec], settings=whole).train("averaged"))
    # The parameters before the first step: what one step adds follows from a training of rate nearly 0.
    still = dataclasses.replace(
        whole, optimizer=OptimizerSettings(learning_rate=1e-30, weight_decay=0.0), end_after=1
    )
    average = np.asarray(kernels(make(data, settings=still).train(NOISE_ROBUST)), float)
    for step, kernel in enumerate(after):
        kept = min(decay, (1 + step) / (10 + step))  # shorter at first
        average = kept * average + (1 - kept) * kernel
    np.testing.assert_allclose(averaged, average, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_models_own_weight_decay_is_as_that_of_the_settings(data):
    decaying = dataclasses.replace(SETTINGS.optimizer, weight_decay=0.5)
    spec = ModelSpec("one", CrossEntropy())
    own, of_all, without = (
        make(data, [each], settings=dataclasses.replace(SETTINGS, optimizer=optimizer)).train("one")
        for each, optimizer in (
            (dataclasses.replace(spec, weight_decay=0.5), SETTINGS.optimizer),
            (spec, decaying),
            (spec, SETTINGS.optimizer),
        )
    )
    np.testing.assert_array_equal(kernels(own), kernels(of_all))
    assert np.square(kernels(own)).sum() < 0.8 * np.square(kernels(without)).sum()


def test_auxiliaries_out_of_fold_may_know_more_of_the_same_inputs(data):
    """Such as counts and noise; of other inputs they could not be looked up."""
    f_L, f_N = auxiliaries()
    knowing = dataclasses.replace(data, class_counts=np.array([4.0, 3, 2, 1]))
    others = data.rows(np.arange(60))
    target = ModelSpec(TARGET, LogitAdjustment(), "target", DSink(), auxiliary_predictions="out_of_fold")
    how = {"seed": 0, "devices": jax.devices()[:1], "folds": 2}
    for own, fits in ((knowing, True), (others, False)):
        specs = [f_L, dataclasses.replace(f_N, training_set=own), target]
        if fits:
            trained = Recipe(data, specs, linear, SETTINGS, **how).train_all()
            np.testing.assert_allclose(trained[NOISE_ROBUST].facts.class_counts, [4, 3, 2, 1])
        else:
            with pytest.raises(InputError, match="training set of its own: target cannot look it up"):
                Recipe(data, specs, linear, SETTINGS, **how)


def test_streamed_inputs_train_what_arrays_in_memory_do(data, tmp_path):
    np.save(tmp_path / "inputs.npy", data.inputs)
    streamed = dataclasses.replace(data, inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"))
    assert isinstance(streamed.inputs, np.memmap)
    how = {"target": "out_of_fold", "folds": 2}
    one, other = (make(each, **how).train_all() for each in (data, streamed))
    for name, trained in one.items():
        np.testing.assert_allclose(kernels(trained), kernels(other[name]), rtol=1e-4, atol=1e-5)


def test_who_watches_is_told_and_may_stop(data, tmp_path):
    told = []
    watching = Watching(
        evaluate=lambda spec, trained: {
            "role": spec.role,
            "finite": bool(jnp.isfinite(kernels(trained)).all()),
        },
        on_record=lambda name, record: told.append((name, record["epoch"], record["role"], record["finite"])),
        on_fold=lambda *now: told.append(now),
        on_start=lambda name, epochs: told.append((name, epochs)),
    )
    work = make(data, watching=watching, directory=tmp_path, folds=2)
    work.train(NOISE_ROBUST)
    assert told == [(NOISE_ROBUST, 0)] + [(NOISE_ROBUST, k, "auxiliary", True) for k in (1, 2, 3)]
    told.clear()
    work.out_of_fold(NOISE_ROBUST)
    assert [entry for entry in told if len(entry) == 3] == [(NOISE_ROBUST, 1, 2), (NOISE_ROBUST, 2, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "noise_robust",
        "noise_robust_fold_1",
        "noise_robust_fold_2",
    ]
    stopping = make(data, watching=Watching(should_stop=lambda step: True))
    with pytest.raises(TrainingStoppedError, match="before noise_robust"):
        stopping.train(NOISE_ROBUST)


def test_folds_share_every_class_evenly():
    labels = np.random.default_rng(0).choice(4, 203, p=[0.7, 0.2, 0.08, 0.02])
    fold = make_folds(labels, 5, seed=3)
    for label in range(4):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 1
    assert (make_folds(labels, 5, seed=4) != fold).any()
    for folds in (1, 204, 2.0):
        with pytest.raises(InputError, match="folds must be between 2 and the number of examples, 203"):
            make_folds(labels, folds, seed=3)
