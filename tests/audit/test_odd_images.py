"""Good pictures with odd EXIF are read upright; damaged files end in a line with their name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from dsink_jax import audit
from dsink_jax.errors import InputError

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, kind, **options)
    return buffer.getvalue()


def read(tmp_path, name, content):
    (tmp_path / "cat").mkdir(exist_ok=True)
    (tmp_path / "cat" / name).write_bytes(content)
    try:
        return audit.read(tmp_path, image_size=9)
    finally:
        (tmp_path / "cat" / name).unlink()


def exif(orientation, tag, kind, count):
    """EXIF of two entries: the orientation and one that may be odd."""
    rows = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHII", tag, kind, count, 38)
    return b"Exif\0\0II*\0\x08\0\0\0\x02\0" + rows + struct.pack("<I", 0) + struct.pack("<ll", -1, 0) * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(orientation, tmp_path):
    with_exif = Image.Exif()
    with_exif[0x0112] = orientation
    content = encoded("PNG", exif=with_exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    expected = np.asarray(turned.resize((9, 9)))
    np.testing.assert_array_equal(read(tmp_path, "a.png", content).inputs[0], expected)


@pytest.mark.parametrize(("tag", "kind"), [(0xA005, 1), (0x011A, 1), (0x011A, 2), (0x8769, 7), (0x927C, 13)])
def test_odd_entries_beside_the_orientation_do_not_matter(tag, kind, tmp_path):
    content = encoded("PNG", exif=exif(6, tag, kind, 1))
    expected = np.asarray(Image.fromarray(PICTURE).transpose(Image.Transpose.ROTATE_270).resize((9, 9)))
    np.testing.assert_array_equal(read(tmp_path, "a.png", content).inputs[0], expected)


@pytest.mark.parametrize("name", [b"pHYs", b"gAMA", b"fcTL", b"acTL", b"tRNS"])
def test_a_chunk_that_is_too_short_is_told_with_the_file(name, tmp_path):
    content = encoded("PNG")
    chunk = struct.pack(">I", 0) + name + struct.pack(">I", zlib.crc32(name))
    at = content.index(b"IDAT") - 4
    try:
        found = read(tmp_path, "short.png", content[:at] + chunk + content[at:]).inputs
    except InputError as error:
        assert "short.png" in str(error)
    else:
        assert found.shape == (1, 9, 9, 3)
