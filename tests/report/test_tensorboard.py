"""TensorBoard's event files, read back with the record format by hand."""

import importlib.util
import json
import struct

import pytest

from dsink_jax.report import write_events
from run_pages import write_run

pytest.importorskip("tensorboardX")


def crc32c(data):
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    """The records of an event file: length, its checksum, content, its checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        content = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(content),)
        yield content
        data = data[16 + length :]


def scalars(folder):
    """(tag, step) -> value of the one event file of a folder; none may be there twice."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    found = {}
    for record in records(path):
        event = Event.FromString(record)
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value.simple_value
    return found


def test_checksum_by_the_published_value():
    assert crc32c(b"123456789") == 0xE3069283


def test_every_number_of_the_records(tmp_path):
    write_run(tmp_path)
    folder = write_events(tmp_path)
    assert folder == tmp_path / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == ["imbalance_robust", "noise_robust", "target"]
    for model in folder.iterdir():
        expected = {("train/loss", epoch): 1 / epoch for epoch in (1, 2, 3)}
        expected |= {("evaluation/accuracy", epoch): 0.1 * epoch for epoch in (1, 2, 3)}
        assert scalars(model) == pytest.approx(expected, abs=1e-6)


def test_written_again_every_epoch_is_there_once(tmp_path):
    write_run(tmp_path)
    write_events(tmp_path)
    path = tmp_path / "metrics.jsonl"
    more = [
        {"model": "target", "epoch": 4, "train": {"loss": 0.2}, "accuracy": 0.5, "few": None},
        {"model": "../a b", "epoch": 1, "train": {}, "accuracy": 0.5},
    ]
    path.write_text(path.read_text() + "".join(json.dumps(record) + "\n" for record in more))
    folder = write_events(tmp_path)
    found = scalars(folder / "target")
    assert sorted(epoch for tag, epoch in found if tag == "evaluation/accuracy") == [1, 2, 3, 4]
    assert ("evaluation/few", 4) not in found
    assert scalars(folder / "___a_b") == {("evaluation/accuracy", 1): 0.5}


def test_without_tensorboardx_nothing_is_written(tmp_path, monkeypatch):
    write_run(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboardX" else find(name, *rest)
    )
    assert write_events(tmp_path) is None
    assert not (tmp_path / "tensorboard").exists()
