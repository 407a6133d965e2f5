"""Which labels are probably wrong, what they should be, and how sure that is."""

from dsink_jax.audit.cross_fitting import OutOfSample, audit_labels, out_of_sample_logits
from dsink_jax.audit.label_errors import LabelErrors, find_label_errors
from dsink_jax.audit.labelled import Labelled
from dsink_jax.audit.reading import read
from dsink_jax.audit.several_labels import MultilabelErrors, find_multilabel_errors
from dsink_jax.audit.writing import by_class, cautions, page, summary, table
from dsink_jax.audit.writing_several import page_of_several, summary_of_several, table_of_several
from dsink_jax.training_set import make_folds

__all__ = [
    "LabelErrors",
    "Labelled",
    "MultilabelErrors",
    "OutOfSample",
    "audit_labels",
    "by_class",
    "cautions",
    "find_label_errors",
    "find_multilabel_errors",
    "make_folds",
    "out_of_sample_logits",
    "page",
    "page_of_several",
    "read",
    "summary",
    "summary_of_several",
    "table",
    "table_of_several",
]
