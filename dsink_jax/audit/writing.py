"""What an audit found, as text, as a table for programs, and as a page for people."""

import collections
import csv
import html
import io
import unicodedata
from collections.abc import Sequence

import numpy as np

from dsink_jax.audit.label_errors import LabelErrors
from dsink_jax.audit.labelled import Labelled
from dsink_jax.data.copies import find_copies
from dsink_jax.data.streaming import is_streamed
from dsink_jax.report import align, percent
from dsink_jax.report.document import document
from dsink_jax.report.gallery import displayable, png_data_uri

COLUMNS = ("rank", "example", "given", "proposed", "wrong_probability", "confidence", "wrong")
KNOWN = "known"
"""One more column where examples of no class were looked for: how far each is known to be of one."""
NONE = "none of these"
_MOST_WRONG = 0.75  # of a class, from which on it is doubted
# When labels count as given away by a few columns, and by how many examples that is judged.
_GIVEN_AWAY, _FOLDS_OF_TREE, _FEWEST, _MOST = 0.99, 3, 40, 5000
_HEAD = ("example", "given", "proposed", "wrong with probability")


def table(data: Labelled, found: LabelErrors) -> str:
    """All examples as CSV, the most probably wrong label first.

    Args:
      data: the examples.
      found: what was found of their labels.

    Returns:
      Lines with `COLUMNS`: the name of the example; its given label and the proposed one, which is the most
      probable other class if the given one is probably wrong, and else the same; the probabilities that the
      given one is wrong and that the proposed one is right; and `yes` or `no`. Where a label could not be
      judged there is no probability, and `unknown`. Of examples that are probably of no class the proposed
      label is `none of these`; where such were looked for `KNOWN` is the last column.
    """
    proposed, confidence = _proposals(data, found)
    names = (*data.class_names, NONE)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS if found.known is None else (*COLUMNS, KNOWN))
    for rank, i in enumerate(found.ranking, start=1):
        said = [
            f"{found.wrong_probability[i]:.4f}",
            f"{confidence[i]:.4f}",
            "yes" if found.is_wrong[i] else "no",
        ]
        if np.isnan(found.wrong_probability[i]):
            said = ["", "", "unknown"]
        known = [] if found.known is None else [f"{found.known[i]:.4f}"]
        rows.writerow([rank, data.names[i], names[data.labels[i]], names[proposed[i]], *said, *known])
    return text.getvalue()


def summary(data: Labelled, found: LabelErrors, shown: int = 10) -> str:
    """What was found in a few lines: overall, class by class, and the most probably wrong labels."""
    count, wrong = len(data.labels), int(found.is_wrong.sum())
    expected = _expected(found)
    lines = [
        f"{wrong:,} of {count:,} labels are probably wrong ({percent(wrong / count)} %); "
        f"expected in all: {percent(expected)} %",
        *_of_none(found),
        "",
        align([("given label", "examples", "wrong", "share", "est. true"), *by_class(data, found)], left=1),
    ]
    if wrong:
        rows = [_HEAD, *_worst(data, found, found.ranking[: min(shown, wrong)])]
        lines += ["", align(rows, left=3)]
    return "\n".join(lines)


def cautions(data: Labelled, found: LabelErrors, noise_robust_logits: np.ndarray, folds: int) -> list[str]:
    """Why what was found may be worth little, one line each; none if nothing speaks against it.

    Args:
      data: the examples.
      found: what was found of their labels.
      noise_robust_logits: floating `[M, C]`, f_N's for examples that it has not seen.
      folds: parts that the data was split into.
    """
    given = np.bincount(data.labels, minlength=len(data.class_names))
    told = []
    predicted = noise_robust_logits.argmax(-1)
    agreed, largest = np.mean(predicted == data.labels), given.max() / given.sum()
    if agreed <= largest:
        told.append(
            f"f_N predicts {percent(float(agreed))} % of the given labels, no more than naming the largest "
            f"class each time would: {percent(float(largest))} %. Train longer, or give other features."
        )
    if few := [name for name, count in zip(data.class_names, given, strict=True) if 0 < count < folds]:
        told.append(
            f"Too few examples to judge well, fewer than the {folds} folds (the only one of a class is "
            f"not judged at all): {_listed(few)}."
        )
    # f_N may have given a rare class up, and then calls its labels wrong, right or not.
    flagged = np.bincount(data.labels[found.is_wrong], minlength=len(given))
    kept = np.bincount(data.labels[predicted == data.labels], minlength=len(given))
    lost = [
        name
        for name, g, w, k in zip(data.class_names, given, flagged, kept, strict=True)
        if g >= folds and w > _MOST_WRONG * g and k < (1 - _MOST_WRONG) * g
    ]
    if lost:
        told.append(
            f"Nearly all labels of some classes are called wrong, and f_N hardly predicts these classes: "
            f"{_listed(lost)}. Either that is so, or it has not learned them: look at some before you "
            "believe it, and try noise_method='cross_entropy' or better features."
        )
    if repeated := [name for name, count in collections.Counter(data.names).items() if count > 1]:
        told.append(f"Several examples have the same id: {_listed(repeated)}.")
    alike: dict[str, list[str]] = {}
    for name in data.class_names:
        alike.setdefault(_looks(name), []).append(name)
    if same := [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
        told.append(
            "Classes that differ in capitals, spaces or the way they are written are taken as different: "
            f"{_listed(same)}."
        )
    told += _of_copies(data)
    if away := _giving_away(data):
        told.append(
            f"The labels follow nearly without error from {_listed(away)}. If these columns were made from "
            "the labels, leave them out: no wrong label can be found by them."
        )
    return [*told, *data.notes]


def _of_copies(data):
    """How many examples are copies of others, and which of these have different labels."""
    if is_streamed(data.inputs):
        return []
    groups = find_copies(data.inputs)
    copies = len(groups) - (groups.max(initial=-1) + 1)
    if not copies:
        return []
    told = [f"{copies:,} examples are copies of others. Models that judge one have seen none of its copies."]
    pairs = np.unique(np.column_stack([groups, data.labels]), axis=0)[:, 0]
    differing = np.flatnonzero(np.isin(groups, pairs[:-1][pairs[1:] == pairs[:-1]]))
    if len(differing):
        names = [data.names[i] for i in differing[np.argsort(groups[differing], kind="stable")]]
        told.append(f"Copies with different labels, of which one at least is wrong: {_listed(names)}.")
    return told


def _looks(name):
    """The same for names that look alike: capitals, spaces, forms of Unicode, `1` and `1.0`."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())
    try:
        return repr(float(plain))
    except ValueError:
        return plain


def _giving_away(data):
    """Columns from which a small tree tells nearly all labels of examples that it has not seen."""
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    counts = np.bincount(data.labels)
    if data.inputs.ndim != 2 or len(data.labels) < _FEWEST or counts[counts > 0].min() < _FOLDS_OF_TREE:
        return []
    rows = np.random.default_rng(0).permutation(len(data.labels))[:_MOST]
    inputs, labels = np.asarray(data.inputs, np.float64)[rows], data.labels[rows]
    tree = DecisionTreeClassifier(max_leaf_nodes=2 * int((counts > 0).sum()), random_state=0)
    if cross_val_score(tree, inputs, labels, cv=_FOLDS_OF_TREE).mean() < _GIVEN_AWAY:
        return []
    used = np.flatnonzero(tree.fit(inputs, labels).feature_importances_)
    return [repr(data.columns[i]) if data.columns else f"feature {i}" for i in used]


def _listed(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def by_class(data: Labelled, found: LabelErrors) -> list[tuple[str, ...]]:
    """For each class: examples given it, how many probably wrongly, and how many there truly are."""
    given = np.bincount(data.labels, minlength=len(data.class_names))
    wrong = np.bincount(data.labels[found.is_wrong], minlength=len(data.class_names))
    known = 1.0 if found.known is None else found.known[:, None]
    true = (known * found.probabilities).sum(0)
    return [
        (name, f"{g:,}", f"{w:,}", f"{percent(w / g) if g else '-'} %", f"{t:,.0f}")
        for name, g, w, t in zip(data.class_names, given, wrong, true, strict=True)
    ]


def page(
    data: Labelled, found: LabelErrors, title: str, shown: int = 200, cautions: Sequence[str] = ()
) -> str:
    """A self-contained HTML page: overall, class by class, and the most probably wrong labels with images.

    Args:
      data: the examples.
      found: what was found of their labels.
      title: of the page.
      shown: how many of the labels that are most probably wrong.
      cautions: what speaks against it all; see `cautions`.
    """
    wrong = int(found.is_wrong.sum())
    head = ("given label", "examples", "probably wrong", "share", "estimated true number")
    worst = found.ranking[: min(shown, wrong)]
    is_image = data.inputs.ndim > 2
    return document(
        title,
        [
            f"<p>{wrong:,} of {len(data.labels):,} labels are probably wrong. Expected wrong in all: "
            f"{percent(_expected(found))} %.</p>",
            *(f"<p>{line}.</p>" for line in _of_none(found)),
            *(f"<p><strong>{html.escape(caution)}</strong></p>" for caution in cautions),
            "<h2>Class by class</h2>",
            html_table(head, by_class(data, found)),
            f"<h2>The {len(worst)} labels that are most probably wrong</h2>",
            _gallery(data, found, worst) if is_image else html_table(_HEAD, _worst(data, found, worst)),
        ],
    )


def _of_none(found):
    """A line on examples of no class, where they were looked for."""
    if found.known is None:
        return []
    none = int(found.is_none.sum())
    return [
        f"{none:,} of these examples are probably of none of the classes; expected in all: "
        f"{percent(float(1 - found.known.mean()))} %"
    ]


def _expected(found):
    """The share of wrong labels to be expected among those that were judged; 0 if there are none."""
    judged = found.wrong_probability[~np.isnan(found.wrong_probability)]
    return float(judged.mean()) if len(judged) else 0.0


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    lines = [[f'<th scope="col">{html.escape(name)}</th>' for name in head]]
    lines += [[f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows]
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f'<div class="wide"><table>{body}</table></div>'


def _proposals(data, found):
    """The label to put in each one's place, C for none of them, and its probability.

    A label can be wrong more probably than not and yet be the most probable one, where the others share what
    it lacks: it is then the likeliest of the others that is to be looked at.
    """
    rows = np.arange(len(data.labels))
    others = found.probabilities.copy()
    others[rows, data.labels] = -1
    proposed = np.where(found.is_wrong, others.argmax(-1), data.labels)
    confidence = found.probabilities[rows, proposed]
    if found.known is None:
        return proposed, confidence
    none = found.is_none
    return np.where(none, len(data.class_names), proposed), np.where(
        none, 1 - found.known, found.known * confidence
    )


def _worst(data, found, rows):
    """Example, given and proposed label, and probability that it is wrong, as text."""
    proposed, _ = _proposals(data, found)
    names = (*data.class_names, NONE)
    return [
        (
            data.names[i],
            names[data.labels[i]],
            names[proposed[i]],
            f"{found.wrong_probability[i]:.3f}",
        )
        for i in rows
    ]


def _gallery(data, found, rows):
    items = []
    classes, confidence = _proposals(data, found)
    names = (*data.class_names, NONE)
    for i, image in zip(rows, displayable(data.inputs[rows]), strict=True):
        given, proposed = (html.escape(names[k]) for k in (data.labels[i], classes[i]))
        name = html.escape(data.names[i], quote=True)
        items.append(
            f'<li><img src="{png_data_uri(image)}" alt="example {name}, given label {given}" '
            f'width="64" height="64"><span>{name}</span><span>given: {given}</span>'
            f'<span class="differs">proposed: {proposed} ({percent(confidence[i])} %)</span></li>'
        )
    return '<ul class="gallery">' + "\n".join(items) + "</ul>"
