"""Images from a folder that has a folder of them for each class."""

import collections
import contextlib
import io
import os
import pathlib

import numpy as np

from dsink_jax.audit.labelled import Labelled
from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError
from dsink_jax.extras import needs

# Folders that hold parts of a data set, not classes; and what other programs leave in folders.
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_LEFT_BEHIND = {"__MACOSX", "@eaDir"}
# Of PNG: how it begins, and the chunks that make the picture and say which way is up.
_PNG = b"\x89PNG\r\n\x1a\n"
_OF_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}
_ORIENTATION = 0x0112  # EXIF's tag, and what undoes each of its values
_TURNS = {
    **{2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"},
    **{6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"},
}


def read_folder(path: pathlib.Path, image_size: int) -> Labelled:
    """Reads a folder; see `dsink_jax.audit.read`."""
    with needs("audit", "Reading a folder of images"):
        from PIL import Image

    if not isinstance(image_size, int) or image_size < 1:
        raise InputError(f"The side of the images must be at least 1, got {image_size!r}.")
    Image.init()
    readable = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    folders = [
        folder for folder in sorted(path.iterdir()) if folder.is_dir() and not _is_hidden(folder, path)
    ]
    found = [
        (file, folder.name)
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not _is_hidden(file, path)
    ]
    files = [(file, name) for file, name in found if file.suffix.lower() in readable]
    if len(folders) > 1 and {folder.name.lower() for folder in folders} <= _SPLITS:
        parts = " and ".join(folder.name for folder in folders)
        raise InputError(
            f"{path} holds {parts}, which are parts of a data set and no classes.\nGive one of them: "
            f"{folders[0]}."
        )
    if not files:
        raise InputError(f"{path} must hold a folder for each class, with images in it; none was found.")
    images = np.empty((len(files), image_size, image_size, 3), np.uint8)
    scales = _scales(file for file, _ in files)
    for row, (file, _) in zip(images, files, strict=True):
        row[:] = _use(file, lambda image: _as_bytes(image, image_size, scales))
    names = tuple(_text(file.relative_to(path)) for file, _ in files)
    classes = sorted({folder for _, folder in files})
    labels = np.array([classes.index(folder) for _, folder in files])
    left = [file for file, _ in found if file.suffix.lower() not in readable]
    beside = [file for file in sorted(path.iterdir()) if not file.is_dir()]
    links = [
        file for folder in folders for file in folder.rglob("*") if not file.exists()
    ]  # that lead nowhere
    left += [file for file in [*beside, *links] if not _is_hidden(file, path)]
    empty = [folder.name for folder in folders if folder.name not in classes]
    return Labelled(images, labels, tuple(map(_text, classes)), names, notes=_left_out(left, empty))


def _is_hidden(file, path):
    """Whether a file or folder is hidden, or what other programs left behind, at any depth."""
    parts = file.relative_to(path).parts
    return any(part.startswith(".") or part in _LEFT_BEHIND for part in parts)


def _left_out(files, empty):
    """Sentences on files that are no images or in no class, and on folders without images."""
    notes = []
    if files:
        kinds = collections.Counter(file.suffix.lower() or "without an ending" for file in files)
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
        notes.append(
            f"Files that are left out, as they are no images that can be read, or in no class: {shown}."
        )
    if empty:
        notes.append(f"Folders without an image are no classes: {', '.join(map(_text, empty[:10]))}.")
    return tuple(notes)


def _use(file, what):
    """What a function makes of an image, or `InputError` for what is none.

    A PNG that Pillow cannot read is read without what is no part of the picture: texts, profiles, times.
    """
    with needs("audit", "Reading a folder of images"):
        from PIL import Image

    try:
        with Image.open(file) as image:
            return what(image)
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds for what is damaged or odd
        with contextlib.suppress(Exception), Image.open(io.BytesIO(_picture_alone(file))) as image:
            return what(image)
        raise InputError(f"{file} cannot be read as an image: {first_line(error)}.") from error


def _picture_alone(file):
    """A PNG without the chunks that are no part of the picture; empty for what is none."""
    content = file.read_bytes()
    if not content.startswith(_PNG):
        return b""
    found, at = [_PNG], len(_PNG)
    while at + 8 <= len(content):
        stop = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] in _OF_PICTURE:
            found.append(content[at:stop])
        at = stop
    return b"".join(found)


def _upright(image):
    """As its EXIF says that it was held; as it is where that cannot be read."""
    with needs("audit", "Reading a folder of images"):
        from PIL import Image

    image.load()
    turn = None
    with contextlib.suppress(Exception):  # odd EXIF in a good picture
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    return image if turn is None else image.transpose(Image.Transpose[turn])


def _is_deep(image):
    """Whether its numbers have more than 8 bits: `I` for integers, `F` for floats, or an empty word."""
    return image.mode[0] if image.mode.startswith(("I", "F")) else ""


def _deep_values(image):
    kind = _is_deep(image)
    return kind, np.asarray(image, np.float64) if kind else None


def _scales(files):
    """What is black and what white in all images of a folder that have more than 8 bits, by kind of number.

    White is the largest number of 8, 10, 12, 14 or 16 bits that none is above, or 1 for floats that are not;
    where there are others, or negative ones, the least and the largest of all.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for file in files:
        kind, values = _use(file, _deep_values)
        if not kind:
            continue
        if not np.isfinite(values).all():
            raise InputError(f"{file} holds NaN or infinity, which is no brightness.")
        low, high = ranges.get(kind, (np.inf, -np.inf))
        ranges[kind] = min(low, float(values.min())), max(high, float(values.max()))
    return {kind: _scale(kind, *found) for kind, found in ranges.items()}


def _scale(kind, low, high):
    steps = [*([1.0] if kind == "F" else []), *(2.0**bits - 1 for bits in (8, 10, 12, 14, 16))]
    white = next((step for step in steps if high <= step), None)
    return (0.0, white) if low >= 0 and white is not None else (low, high)


def _as_bytes(image, size, scales):
    """Red, green and blue, upright, on white where it is transparent; more than 8 bits are scaled to 8."""
    with needs("audit", "Reading a folder of images"):
        from PIL import Image

    image = _upright(image)
    if kind := _is_deep(image):
        black, white = scales[kind]
        values = (np.asarray(image, np.float64) - black) / max(white - black, np.finfo(float).tiny)
        image = Image.fromarray((255 * values).round().astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB").resize((size, size)))


def _text(path):
    """A name that can be written as UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
