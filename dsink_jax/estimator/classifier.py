"""D-SINK by scikit-learn's conventions."""

from typing import Any, Self, get_args

import numpy as np
import scipy.sparse
from scipy.special import log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from dsink_jax.allocation import Allocation
from dsink_jax.errors import check_known
from dsink_jax.estimator.fitted import FittedDSink, Predicted
from dsink_jax.estimator.fitting import fit
from dsink_jax.estimator.priors import check_prior
from dsink_jax.estimator.settings import AUTO, NOISE_METHOD, Settings
from dsink_jax.estimator.sklearn_inputs import check_features
from dsink_jax.methods import build_method
from dsink_jax.multilabel import MultilabelAllocation
from dsink_jax.open_set import OpenSetAllocation

_METHODS = ("imbalance_method", "noise_method", "base")


class DSinkClassifier(ClassifierMixin, BaseEstimator):
    """A classifier for feature vectors whose labels are long-tailed and partly wrong.

    The parameters are those of `dsink_jax.estimator.Settings`, with the same meaning and defaults; options of
    a method that is given as an object are parameters too, such as `noise_method__momentum`. And two of
    `FittedDSink.logits`: `role`, which of the models predicts (the target is trained only if it is that, f_L
    and f_N always are), and `prior`, which shares of the classes it predicts for, an array being in the order
    of `classes_`; None is `balanced`, and `estimated` where examples have several labels.
    `set_params(prior=...)` after `fit` changes predictions without another. `random_state`, an integer or a
    generator of NumPy, goes before `seed` where it is given; `verbose` shows progress.

    Attributes:
      classes_: the labels, sorted, `[C]`; 0..C-1 where examples have several.
      n_features_in_: D.
      fitted_: the `FittedDSink`, with the auxiliary models.
      history_: curves of the trainings by role and name, such as `history_["target"]["loss"]`, float64
        `[epochs]`: means over the epoch's training examples.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.array(["cat", "dog", "owl"])[np.arange(60) % 3]
    >>> features = np.eye(3)[np.arange(60) % 3] + 0.1 * rng.standard_normal((60, 3))
    >>> classifier = DSinkClassifier(epochs=10, batch_size=16).fit(features, labels)
    >>> classifier.predict(np.eye(3)).tolist()
    ['cat', 'dog', 'owl']
    """

    def __init__(
        self,
        model=Settings.model,
        *,
        role="target",
        prior=None,
        imbalance_method=Settings.imbalance_method,
        noise_method=Settings.noise_method,
        base=Settings.base,
        alpha=Settings.alpha,
        known_share=Settings.known_share,
        options=Settings.options,
        auxiliary_predictions=Settings.auxiliary_predictions,
        folds=Settings.folds,
        epochs=Settings.epochs,
        batch_size=Settings.batch_size,
        optimizer=Settings.optimizer,
        learning_rate=Settings.learning_rate,
        momentum=Settings.momentum,
        weight_decay=Settings.weight_decay,
        selection=Settings.selection,
        preprocess=Settings.preprocess,
        standardize=Settings.standardize,
        average_decay=Settings.average_decay,
        on_nan=Settings.on_nan,
        seed=Settings.seed,
        random_state=None,
        verbose=False,
    ):
        self.model = model
        self.role = role
        self.prior = prior
        self.imbalance_method = imbalance_method
        self.noise_method = noise_method
        self.base = base
        self.alpha = alpha
        self.known_share = known_share
        self.options = options
        self.auxiliary_predictions = auxiliary_predictions
        self.folds = folds
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.selection = selection
        self.preprocess = preprocess
        self.standardize = standardize
        self.average_decay = average_decay
        self.on_nan = on_nan
        self.seed = seed
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """As scikit-learn's; an option of a method that is given by name makes an object of the method.

        An option of f_N's method where that is left open (`auto`) is one of ELR, which is then taken.

        Raises:
          ValueError: for an unknown parameter.
        """
        for name in {key.partition("__")[0] for key in params if "__" in key}:
            if name in _METHODS and isinstance(getattr(self, name), str) and name not in params:
                given = getattr(self, name)
                setattr(self, name, build_method(NOISE_METHOD if given == AUTO else given))
        return super().set_params(**params)

    def fit(self, X: Any, y: Any) -> Self:
        """Trains f_L, f_N and the target.

        Args:
          X: features `[M, D]`, numbers; of a frame with categories, each of them becomes one of 0 and 1.
          y: labels `[M]` of any kind, as observed, at least two different ones; or 0 and 1 `[M, C]`, which of
            several labels each example has.

        Raises:
          ValueError: for anything else, or parameters out of range.
        """
        X, y = check_features(self, X, y, reset=True)
        y = y.toarray() if scipy.sparse.issparse(y) else y
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        if y.ndim == 2:
            return self._fit(X, y, np.arange(y.shape[1]))
        try:
            self.classes_, labels = np.unique(y, return_inverse=True)
        except TypeError:  # they cannot be sorted
            kinds = sorted({type(label).__name__ for label in y.tolist()})
            raise ValueError(
                f"The labels must be of one kind, got {' and '.join(kinds)}. Leave out what is not labelled."
            ) from None
        check_classification_targets(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"A classifier needs at least 2 classes, and the labels are of one class: {y[0]}."
            )
        return self._fit(X, labels, self.classes_)

    def _fit(self, X, labels, classes):
        self.classes_ = classes
        check_known("role", self.role, get_args(Predicted))
        given = self.get_params(deep=False)
        role, prior, verbose = (given.pop(name) for name in ("role", "prior", "verbose"))
        if (random_state := given.pop("random_state")) is not None:
            given["seed"] = _seed_of(random_state)
        self.fitted_: FittedDSink = fit(
            X,
            labels,
            prior=prior,
            num_classes=len(self.classes_),
            settings=Settings(**given),
            target=role == "target",
            verbose=bool(verbose),
        )
        self.history_ = {name: _curves(part.history) for name, part in self.fitted_.parts.items()}
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities float32 `[M, C]`, in the order of `classes_`.

        Raises:
          ValueError: for features unlike those of `fit`, a `role` that was not trained then, or a `prior` of
            other classes.
        """
        X = self._checked(X)
        return self.fitted_.predict_proba(X, self.role, self._checked_prior())

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms float32 `[M, C]` of the probabilities, finite where these round to 0; see there."""
        X = self._checked(X)
        logits = self.fitted_.logits(X, self.role, self._checked_prior())
        return log_expit(logits) if self.fitted_.several_labels else log_softmax(logits, axis=-1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable labels `[M]`; see `predict_proba`."""
        X = self._checked(X)
        found = self.fitted_.predict(X, self.role, self._checked_prior())
        return found.astype(int) if self.fitted_.several_labels else self.classes_[found]

    def known_probability(self, X: Any) -> np.ndarray:
        """How far examples are known to be of a class, float32 `[M]`; see `FittedDSink.known_probability`.

        Raises:
          ValueError: if `known_share` was 1, or the target was not trained, `role` being another.
        """
        X = self._checked(X)
        return self.fitted_.known_probability(X)

    def surrogate_labels(self, X: Any) -> Allocation | OpenSetAllocation | MultilabelAllocation:
        """Q of the examples, in the order of `classes_`; see `FittedDSink.surrogate_labels`.

        Raises:
          ValueError: if the target was not trained, `role` being another.
        """
        X = self._checked(X)
        return self.fitted_.surrogate_labels(X)

    def _checked(self, X):
        check_is_fitted(self)
        return check_features(self, X, reset=False)

    def _checked_prior(self):
        if self.prior is None:
            return "estimated" if self.fitted_.several_labels else "balanced"
        return check_prior(self.prior, len(self.classes_), several_labels=self.fitted_.several_labels)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _seed_of(random_state):
    """The integer that is given, or one that is drawn."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return random_state


def _curves(history):
    records = [record["train"] for record in history]
    return {name: np.array([record[name] for record in records]) for name in (records[0] if records else ())}
