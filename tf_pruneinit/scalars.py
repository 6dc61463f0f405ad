"""Records as TensorBoard scalars."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tf_pruneinit.records import Record


def writer(path: str) -> Callable[[Record], None]:
    """Returns a function that writes each number of a record as a scalar at the record's step, into a folder of event files."""
    events = tf.summary.create_file_writer(path)

    def write(record: Record) -> None:
        values = dataclasses.asdict(record)
        step = values.pop("step")
        with events.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        events.flush()

    return write
