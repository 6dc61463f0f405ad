"""Records: what is appended is read, whatever became of the process that wrote it."""

import dataclasses
import json

import pytest

from tf_pruneinit import records

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


def test_one_json_object_a_line(path):
    records.append(path, RECORD)
    records.append(path, RECORD)
    with open(path) as file:
        lines = file.readlines()
    assert [json.loads(line) for line in lines] == [dataclasses.asdict(RECORD)] * 2


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
