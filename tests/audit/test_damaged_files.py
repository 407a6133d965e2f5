"""Whatever is in a file: it is read, or an `InputError` names it."""

import gzip
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from dsink_jax import InputError, audit
from table_writing import ALL, TEXT, write_table

# By endings, how each is saved.
IMAGES = {
    **{"png": {}, "jpg": {}, "gif": {}, "bmp": {}, "webp": {}, "ico": {}, "tga": {}, "ppm": {}, "jp2": {}},
    **{"tif": {"compression": "tiff_lzw"}, "pcx": {}, "sgi": {}, "im": {}, "dds": {}, "avif": {}},
}
MODES = ("L", "RGB", "P", "RGBA", "I;16", "F", "1", "CMYK")


def whole_images():
    """Contents of good files, of every format and mode that go together."""
    grey = np.add.outer(np.arange(12), np.arange(16)).astype(np.uint8) * 9
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    found = []
    for ending, how in IMAGES.items():
        for mode in MODES:
            image = Image.fromarray(grey)
            if mode == "I;16":
                image = Image.fromarray(grey.astype(np.uint16) * 257)
            elif mode == "F":
                image = Image.fromarray(grey.astype(np.float32))
            elif mode != "L":
                image = image.convert("RGB").convert(mode)
            content = io.BytesIO()
            try:
                with_exif = {"exif": exif} if ending in ("png", "jpg", "webp", "tif") else {}
                image.save(content, Image.registered_extensions()[f".{ending}"], **how, **with_exif)
            except Exception:
                continue  # no such mode in this format
            found.append((ending, content.getvalue()))
    return found


def damaged(content, rng):
    """The content with one thing wrong."""
    made, kind = bytearray(content), rng.integers(7)
    at = int(rng.integers(len(made))) if rng.random() < 0.5 else int(rng.integers(min(len(made), 64)))
    if kind == 0:
        return bytes(made[:at])
    if kind == 1:
        made[at] = rng.integers(256)
    elif kind == 2:
        made[at : at + 4] = struct.pack("<I", int(rng.choice([0, 1, 255, 65535, 2**31 - 1, 2**32 - 1])))
    elif kind == 3:
        made[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == 4:
        del made[at : at + int(rng.integers(1, 20))]
    elif kind == 5:
        other = int(rng.integers(len(made)))
        made[at : at + 8] = made[other : other + 8]
    else:
        for place in rng.integers(len(made), size=4):
            made[place] = rng.integers(256)
    return bytes(made)


def mistyped(content, rng):
    """The text with one sign more, less or another."""
    at, sign = int(rng.integers(len(content))), b',"\n 1a.\t-{}[]:'
    start = int(rng.integers(len(sign)))
    return content[:at] + sign[start : start + int(rng.integers(2))] + content[at + int(rng.integers(2)) :]


def with_a_chunk(content, rng):
    """A PNG with one more chunk, of a right checksum, that holds anything."""
    names = (
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"iCCP",
        b"pHYs",
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"acTL",
        b"eXIf",
    )
    name = names[rng.integers(len(names))]
    data = [rng.bytes(int(rng.integers(12))), b"\0" * 5, b"a\0" + zlib.compress(b"x" * 50)][rng.integers(3)]
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    at = content.index(b"IDAT" if rng.random() < 0.5 else b"IEND") - 4
    return content[:at] + chunk + content[at:]


def read_or_named(path, named, **how):
    """Whether it is read; anything but an `InputError` that names it is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd EXIF and large images
        try:
            data = audit.read(path, **how)
        except InputError as error:
            assert str(named) in str(error) and len(str(error).splitlines()) <= 3, str(error)
            return False
    assert len(data.labels) == len(data.names) == len(data.inputs)
    assert np.isfinite(data.inputs).all()
    return True


def count_images(count, tmp_path):
    rng = np.random.default_rng(0)
    files, read = whole_images(), 0
    (tmp_path / "a").mkdir()
    for _ in range(count):
        ending, content = files[rng.integers(len(files))]
        chunk = ending == "png" and rng.random() < 0.7
        path = tmp_path / "a" / f"1.{ending}"
        path.write_bytes(with_a_chunk(content, rng) if chunk else damaged(content, rng))
        read += read_or_named(tmp_path, path, image_size=8)
        path.unlink()
    return read


def test_damaged_images_of_many_formats(tmp_path):
    assert len({ending for ending, _ in whole_images()}) >= 12
    assert 50 < count_images(250, tmp_path) < 250


@pytest.mark.slow
def test_thousands_of_damaged_images(tmp_path):
    assert 1000 < count_images(5000, tmp_path) < 5000


CELLS = (
    *("1", "2.5", "-3e2", "", " ", "a", "b", "NaN", "inf", "True", "1e400", "0x1", "1,5", '"', '""', "\0"),
    *("\u00e9", "\ufeff", "?", "-1", "[1]", "{}", "2020-01-01", "9" * 30, "\r", "\n", ";", "a" * 200),
)


def crafted(rng):
    """A table of words that are there by chance, with some lines too long or short."""
    width = int(rng.integers(1, 5))
    names = ["label", *rng.permutation(["id", "x", "y", "", "index", "label.1", "Unnamed: 0"])][: width + 1]
    width = len(names)
    lines = [",".join(names)]
    usual = CELLS[: int(rng.integers(2, len(CELLS)))]
    for _ in range(int(rng.integers(6))):
        extra = int(rng.integers(-1, 2)) if rng.random() < 0.1 else 0
        lines.append(",".join(rng.choice(usual, max(width + extra, 1))))
    return "\n".join(lines).encode()


def count_tables(count, tmp_path):
    rng = np.random.default_rng(0)
    numbers, words = [1.5, 2.5, None, 4.5, 5.5], ["a", "b", "a", "b", "a"]
    whole = {}
    for ending in ALL:
        for name, feature in (("good", [1.5, 2.5, 3.5, 4.5, 5.5]), ("with gaps", numbers), ("words", words)):
            path = write_table(tmp_path, ending, ("id", "x", "label"), (list("vwxyz"), feature, words))
            whole[ending, name] = path.read_bytes()
    keys, read = [*whole], 0
    for number in range(count):
        if rng.random() < 0.3:
            ending, content = ".csv", crafted(rng)
        else:
            key = keys[rng.integers(len(keys))]
            ending, content = key[0], whole[key]
            is_packed = ending.endswith(".gz")
            if ending in TEXT and rng.random() < 0.8:
                content = gzip.decompress(content) if is_packed else content
                content = mistyped(content, rng)
                content = gzip.compress(content) if is_packed else content
            else:
                content = damaged(content, rng)
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(content)
        read += read_or_named(path, path)
        path.unlink()
    return read


def test_damaged_tables_of_every_kind(tmp_path):
    assert 30 < count_tables(300, tmp_path) < 300


@pytest.mark.slow
def test_thousands_of_damaged_tables(tmp_path):
    assert 200 < count_tables(2000, tmp_path) < 2000
