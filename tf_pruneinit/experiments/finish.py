"""Completes a trained run: writes its SavedModel and its result, then exports it in the other forms that are requested."""

import dataclasses
from collections.abc import Sequence

import keras

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import result, run_directory
from tf_pruneinit.experiments.progress import Clock
from tf_pruneinit.experiments.run_directory import Run
from tf_pruneinit.experiments.setup import Setup
from tf_pruneinit.export import converters, saved_model
from tf_pruneinit.runtime import preemption
from tf_pruneinit.training.records import Record
from tf_pruneinit.version import __version__


def finish(
    setup: Setup, run: Run, config: Config, compact: bool, model: keras.Model, records: Sequence[Record], clock: Clock
) -> None:
    """Writes the SavedModel and the result of a run: it is complete then.

    Args:
      setup: the lineage that the run belongs to.
      run: its directory, locked by this process.
      config: its configuration.
      compact: whether the smaller network was trained.
      model: the trained network.
      records: all evaluations.
      clock: seconds of the stages before.
    """
    identity = result.identity(config, *((None, None) if config.prune is None else (setup.pruned_at, setup.rewound_to)))
    circumstances = result.circumstances(config, dataclasses.replace(setup.settings, compact=compact))
    metadata = {"tf_pruneinit": __version__, **identity, "config": config.to_json()}
    metadata |= {"address": config.address, "weights_sha256": result.digest(model), **circumstances}
    run.require()
    with preemption.deferred(f"preempted (SIGTERM); {run.path} is complete"), preemption.writing():
        saved_model.save(model, run.file(run_directory.SAVED_MODEL), setup.dataset.preprocessing, metadata)
        clock.lap("export")
        outcome = result.outcome(setup.dataset, model, records)
        run.finish({**identity, **outcome, **circumstances, "seconds": clock.laps})


def export(setup: Setup, run: Run) -> None:
    """Converts the SavedModel of a complete run to the forms that are requested and not there.

    Raises:
      RunError: if it cannot be converted. The run stays complete.
    """
    for kind in run.lacks(setup.execution.export):
        setup.console.live(f"exporting: {kind}")
        run.require()
        try:
            written = converters.write(kind, run.file(run_directory.SAVED_MODEL), run.file(run_directory.EXPORTS[kind]))
        except UsageError as error:
            raise RunError(f"{run.path} is complete, but cannot be exported: {error}") from error
        setup.console.line(written)
