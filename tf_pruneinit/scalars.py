"""Numbers over time as TensorBoard scalars."""

import os
from collections.abc import Callable, Mapping

import tensorflow as tf


def writer(path: str | os.PathLike[str]) -> Callable[[int, Mapping[str, float]], None]:
    """Returns a function of a step and named numbers that writes each as a scalar, into a folder of event files."""
    events = tf.summary.create_file_writer(str(path))

    def write(step: int, values: Mapping[str, float]) -> None:
        with events.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        events.flush()

    return write
