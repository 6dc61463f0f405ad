"""Writes metrics as scalars of TensorBoard, and the hyperparameters of runs for its table of runs."""

import os
from collections.abc import Callable, Mapping

import tensorflow as tf
from tensorboard.plugins.hparams import api, plugin_data_pb2

METRICS = {"accuracy": "test accuracy", "loss": "test loss"}


def writer(
    path: str | os.PathLike[str], hyperparameters: Mapping[str, str | float | bool] | None = None, name: str | None = None
) -> Callable[[int, Mapping[str, float]], None]:
    """Returns a function of a step and named numbers that writes each number as a scalar.

    Args:
      path: folder of event files.
      hyperparameters: of the run, for TensorBoard's table of runs; None writes none.
      name: of the run in that table.
    """
    events = tf.summary.create_file_writer(str(path))
    if hyperparameters is not None:
        with events.as_default():
            api.hparams(dict(hyperparameters), trial_id=name)

    def write(step: int, values: Mapping[str, float]) -> None:
        with events.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        events.flush()

    return write


def describe(path: str | os.PathLike[str], hyperparameters: Mapping[str, bool]) -> None:
    """Writes the columns of TensorBoard's table of runs: hyperparameters, and whether they differ; it shows those first."""
    metrics = [api.Metric(tag, display_name=shown) for tag, shown in METRICS.items()]
    summary = api.hparams_config_pb([api.HParam(name) for name in hyperparameters], metrics)
    plugin = summary.value[0].metadata.plugin_data
    content = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
    for info in content.experiment.hparam_infos:
        info.differs = hyperparameters[info.name]
    plugin.content = content.SerializeToString()
    with tf.summary.create_file_writer(str(path)).as_default():
        tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=0)
