"""Single training images on the page of a run: images as data URIs, a table of a batch, suspicious labels."""

import base64
import html
import io
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from dsink_jax.extras import needs
from dsink_jax.report.tables import percent

FILE = "examples.npz"
_LARGEST_SIDE = 64
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_KEYS = {
    *("class_names", "batch_true", "batch_given", "batch_target", "batch_noise_robust"),
    *("batch_imbalance_robust", "batch_surrogate", "shown_rows", "shown_index", "shown_images"),
    *("suspect_index", "suspect_images", "suspect_true", "suspect_given", "suspect_proposed"),
    *("suspect_confidence", "suspect_given_share"),
}


def load_examples(directory: pathlib.Path) -> dict[str, Any] | None:
    """What a run kept of single training images, or None if there is nothing that can be read.

    Args:
      directory: a run directory; `experiments/examples.py` says what its examples.npz holds.
    """
    try:
        with np.load(directory / FILE, allow_pickle=False) as archive:
            examples = {key: archive[key] for key in archive.files}
    except _UNREADABLE:
        return None
    if not examples.keys() >= _KEYS:
        return None
    return examples | {"class_names": [str(name) for name in examples["class_names"]]}


def png_data_uri(image: np.ndarray) -> str:
    """An image as a `data:` address of a PNG file.

    Args:
      image: uint8 `[H, W, channels]`. Three channels are red, green and blue; of another number the first
        is shown in grey.

    Raises:
      ValueError: for another shape or type.
      InputError: if Pillow is not installed.

    >>> png_data_uri(np.zeros((2, 2, 1), np.uint8))[:22]
    'data:image/png;base64,'
    """
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 [H, W, channels], got {image.dtype} {list(image.shape)}.")
    with needs("audit", "A page with images"):
        from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def displayable(images: np.ndarray) -> np.ndarray:
    """Images as uint8, at most 64 pixels a side, every n-th pixel of larger ones.

    Args:
      images: `[K, H, W, channels]`. Floating ones are scaled each from its own least value to its largest.
    """
    step = -(-max(images.shape[1:3]) // _LARGEST_SIDE)
    images = images[:, ::step, ::step]
    if images.dtype == np.uint8:
        return images
    images = images.astype(np.float64)
    axes = (1, 2, 3)
    least, largest = images.min(axes, keepdims=True), images.max(axes, keepdims=True)
    scaled = (images - least) / np.where(largest > least, largest - least, 1.0)
    return np.rint(255 * scaled).astype(np.uint8)


def batch_table(examples: dict[str, Any]) -> str:
    """A table of some examples of the batch: image, labels, and what each model and Q say, as HTML."""
    names = examples["class_names"]
    head = ("image", "number", "true label", "given label", "f_N", "f", "Q")
    rows = ["<tr>" + "".join(f'<th scope="col" class="text">{name}</th>' for name in head) + "</tr>"]
    shown = zip(examples["shown_rows"], examples["shown_index"], examples["shown_images"], strict=True)
    for row, index, image in shown:
        true, given = (int(examples[f"batch_{kind}"][row]) for kind in ("true", "given"))
        models = (examples[f"batch_{name}"][row] for name in ("noise_robust", "target", "surrogate"))
        cells = [str(int(index)), names[true], names[given]]
        cells += [f"{names[p.argmax()]} ({percent(float(p.max()))} %)" for p in models]
        kind = ' class="wrong"' if true != given else ""
        rows.append(
            f"<tr{kind}><td>{_image(image, index, names[given])}</td>"
            + "".join(f'<td class="text">{html.escape(cell)}</td>' for cell in cells)
            + "</tr>"
        )
    return '<div class="wide"><table>' + "\n".join(rows) + "</table></div>"


def suspects_gallery(examples: dict[str, Any], *, corrupted: bool = True) -> str:
    """The training images whose given label has the least mass in Q, least first, as HTML.

    Args:
      examples: of a run.
      corrupted: whether labels were made wrong, so that the true ones are known.
    """
    names = examples["class_names"]
    columns = ("index", "images", "true", "given", "proposed", "confidence", "given_share")
    items = []
    for index, image, true, given, proposed, confidence, share in zip(
        *(examples[f"suspect_{column}"] for column in columns), strict=True
    ):
        if not corrupted:
            verdict = ""
        elif true == proposed:
            verdict = '<span class="agrees">✓ is the true label</span>'
        elif true == given:
            verdict = '<span class="differs">✗ the given label is true</span>'
        else:
            verdict = f'<span class="differs">✗ true: {html.escape(names[true])}</span>'
        items.append(
            f"<li>{_image(image, index, names[given])}"
            f"<span>given: {html.escape(names[given])} ({_share(share)})</span>"
            f"<span>proposed: {html.escape(names[proposed])} ({_share(confidence)})</span>{verdict}</li>"
        )
    true, given, proposed = (examples[f"suspect_{name}"] for name in ("true", "given", "proposed"))
    count = len(true)
    told = "No label was made wrong on purpose: whether they are right is not known here."
    if corrupted:
        told = (
            f"{int((true != given).sum())} of the {count} given labels are wrong; "
            f"{int((true == proposed).sum())} of the {count} proposed labels are true."
        )
    last = ", and whether that is the true one" if corrupted else ""
    return (
        f"<p>The {count} training images with the least Q of the label they were given, least first: "
        f"the given label and its share in Q, and the label with the largest share{last}. {told}</p>\n"
        '<ul class="gallery">' + "\n".join(items) + "</ul>"
    )


def _image(image, index, given):
    text = html.escape(f"training image {int(index)}, given label {given}", quote=True)
    return f'<img src="{png_data_uri(image)}" alt="{text}" width="64" height="64">'


def _share(share):
    share = 100 * float(share)
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"
