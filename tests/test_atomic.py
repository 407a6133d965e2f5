"""What was there stays whole until what replaces it is."""

import pytest

from dsink_jax.atomic import replacing


@pytest.mark.parametrize(("mode", "old", "new"), [("w", "old\n", "new\r\nâ\n"), ("wb", b"old", b"new")])
def test_a_file_is_written_whole_or_stays(mode, old, new, tmp_path):
    file = tmp_path / "model.npz"
    with replacing(file, mode, sync=True) as handle:
        handle.write(old)
    with pytest.raises(OSError, match="disk is full"), replacing(file, mode) as handle:
        handle.write(new)
        raise OSError("the disk is full")
    content = file.read_bytes()
    assert (content if mode == "wb" else content.decode()) == old
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]
    with replacing(file, mode) as handle:
        handle.write(new)
    content = file.read_bytes()
    assert (content if mode == "wb" else content.decode()) == new
