"""Records: what is appended is read, whatever became of the process that wrote it."""

import dataclasses
import errno
import json
import os

import pytest

from tf_pruneinit.errors import RunError
from tf_pruneinit.training import records

RECORD = records.Record(
    step=10,
    epoch=0.5,
    loss=2.25,
    accuracy=1 / 3,
    train_loss=2.5,
    train_accuracy=0.25,
    learning_rate=0.1,
    seconds=1.5,
    examples_per_second=1e5,
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "records.jsonl")


def test_reads_what_was_appended(path):
    later = dataclasses.replace(RECORD, step=20, loss=1e-300, skipped_steps=3)
    records.append(path, RECORD)
    records.append(path, later)
    assert records.read(path) == [RECORD, later]


# Without images that are held out, nothing is said of them.
AS_JSON = {name: value for name, value in dataclasses.asdict(RECORD).items() if not name.startswith("validation")}


def test_what_held_out_images_say_is_in_the_file_too(path):
    held_out = dataclasses.replace(RECORD, validation_loss=2.0, validation_accuracy=0.25)
    records.append(path, held_out)
    assert records.read(path) == [held_out]
    assert held_out.scalars()["validation_accuracy"] == 0.25


def test_one_json_object_a_line(path):
    records.append(path, RECORD)
    records.append(path, RECORD)
    with open(path) as file:
        lines = file.readlines()
    assert [json.loads(line) for line in lines] == [AS_JSON] * 2


def test_last_line_torn_anywhere_is_left_out(path):
    records.append(path, RECORD)
    with open(path) as file:
        line = file.read()
    for length in range(len(line)):
        with open(path, "w") as file:
            file.write(line + line[:length])
        assert records.read(path) == [RECORD]


def test_fields_that_came_later_may_be_missing(path):
    values = dataclasses.asdict(RECORD)
    del values["skipped_steps"]
    with open(path, "w") as file:
        file.write(json.dumps(values) + "\n")
    assert records.read(path) == [RECORD]


@pytest.mark.parametrize("line", ["torn", "{}", "[1]", '{"step": 1, "colour": "red"}', "\0" * 100, "\x80"])
def test_line_that_is_no_record_is_named(path, line):
    records.append(path, RECORD)
    with open(path, "a", encoding="latin-1") as file:
        file.write(f"{line}\n")
    records.append(path, RECORD)
    with pytest.raises(RunError, match=r"records\.jsonl is damaged: line 2 is not a record"):
        records.read(path)


def test_full_disk_is_told_with_the_name_of_the_file(path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: records.append(path, RECORD), lambda: records.write(path, [RECORD])):
        with pytest.raises(OSError) as error:
            write()
        assert error.value.filename == path


def test_written_anew_holds_these_alone(path):
    records.append(path, RECORD)
    later = dataclasses.replace(RECORD, step=20)
    records.write(path, [later])
    assert records.read(path) == [later]
    records.write(path, [])
    assert records.read(path) == []
