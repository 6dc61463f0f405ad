"""Runs one experiment: trains its ancestors as far as it needs them, then prunes, trains, evaluates and exports it."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Collection, Iterator

import keras
import tensorflow as tf

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import NoSpaceError, RunError, UsageError, of_tensorflow
from tf_pruneinit.experiments import finish, lineage, multi_worker, resume, run_directory, start, train
from tf_pruneinit.experiments.lineage import Leg
from tf_pruneinit.experiments.multi_worker import Order
from tf_pruneinit.experiments.progress import Clock
from tf_pruneinit.experiments.resume import Found
from tf_pruneinit.experiments.run_directory import Run
from tf_pruneinit.experiments.setup import Setup
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import summary
from tf_pruneinit.runtime import preemption
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.runtime.workers import task_index_and_count

# What TensorFlow raises in a worker when another one is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


def run(
    config: Config,
    execution: Execution,
    console: Console,
    *,
    snapshots_at: Collection[str] = (),
    complete: bool = True,
    share: bool = False,
) -> Run | None:
    """Prunes, trains, evaluates and exports a network; returns the complete run.

    A network that is pruned later than at initialization is that of another run, its parent, which is trained first, as far as
    it is needed, if it is not in the working directory: all methods and sparsities of a seed share one dense run.

    A run that was begun is resumed from its last checkpoint, to the same bits. Of several workers the chief writes the run and
    returns it; the others return None.

    Args:
      config: what the experiment is.
      execution: how it is run.
      console: where progress is shown.
      snapshots_at: training points, as `TrainingPoint.parse` reads them, whose weights are saved for runs that start from this
        one.
      complete: False trains no further than the last of these.
      share: whether scores are cached in the working directory, for other runs that start from the same network.

    Raises:
      UsageError: for data that is missing or does not fit, too many devices, a workdir that cannot be written, a step beyond
        the schedule. No file is written.
      DataError: if the data is damaged, or not that on which the run was begun. The run can still be resumed.
      RunError: if training diverges, memory or disk runs out, a worker is lost, or a file of the run is damaged. The run
        can still be resumed.
      Preempted: if the process receives SIGTERM; a checkpoint is written first.
    """
    preemption.set_grace_seconds(execution.grace_seconds)
    clock = Clock()
    with _failures(os.path.join(execution.workdir, config.address)):
        setup = Setup(config, execution, console, share)
        points = {setup.step_of("snapshots_at", point) for point in snapshots_at}
        leg = Leg(config, setup.steps if complete else max(points), frozenset({*points, *execution.snapshot_steps}))
        clock.lap("data")
        if not setup.workers.chief:
            train.follow(setup)
            return None
        with run_directory.open_run(execution.workdir, config, overwrite=execution.overwrite) as requested:
            found = resume.find(setup, requested, config)
            if found.needs_start(requested, leg.snapshot_steps):
                # Looked for anew after each: another process may overwrite one of them meanwhile.
                while ancestors := lineage.to_train(setup):
                    _train_ancestor(setup, ancestors[0])
            if config.parent:
                clock.lap("parents")
            _bring(setup, requested, leg, found, clock)
        multi_worker.send_end(setup.workers)
    return requested


def _train_ancestor(setup: Setup, leg: Leg) -> None:
    path = setup.directory(leg.config)
    setup.console.line(f"first {leg.config.method}, to step {leg.until:,}: {path}")

    def wait() -> None:
        setup.console.live(f"waits for another process that writes {path}")

    with run_directory.open_run(setup.execution.workdir, leg.config, wait=wait) as run:
        _bring(setup, run, leg, resume.find(setup, run, leg.config), Clock())


def _bring(setup: Setup, run: Run, leg: Leg, found: Found, clock: Clock) -> None:
    """Brings a run to a step, from where an earlier process left it; at the last step it is complete.

    Its ancestors are trained as far as it needs them.
    """
    config, last = leg.config, leg.until == setup.steps
    if missing := found.missing(run, leg.snapshot_steps):
        train.replay(setup, run, config, found, missing)
    if run.result is None and (last or found.step < leg.until):
        model = _network(setup, run, config, found)
        compact = train.trains_compact(setup, run, config, model, found)
        if found.state is None:
            run.save_execution(dataclasses.replace(setup.settings, compact=compact).to_json())
        setup.free_scoring_batches()
        clock.lap("prune")

        # What may be pruned after training is saved as it then is.
        ends = {setup.steps} if config.prune is None or config.prune.prune_at == "end" else set()
        snapshot_steps = tuple(sorted({*leg.snapshot_steps, *ends}))
        order = Order(
            run=setup.lineage.index(config),
            until=leg.until,
            snapshot_steps=snapshot_steps,
            compact=compact,
            arrays=found.arrays or {},
            state=found.state or {},
        )
        records = train.train(setup, run, model, order)
        clock.lap("train", before=order.state.get("seconds", 0.0))
        if records and last:
            if config.prune and config.prune.changes:
                run.save_masks(masking.masks(model))
            finish.finish(setup, run, config, compact, model, records, clock)
    if run.result is not None:
        finish.export(setup, run)


def _network(setup: Setup, run: Run, config: Config, found: Found) -> keras.Model:
    """The network that a run trains: that of its checkpoint, or a new one, whose masks are saved."""
    if found.masks is not None:
        model = setup.masked_network(config, found.masks)
        setup.console.line(f"\n{masking.summary(model)}\n")
        return model
    run.restart()
    with warnings.catch_warnings():
        if setup.execution.require_alive:  # A dead network is an error then.
            warnings.filterwarnings("ignore", summary.DEAD)
        model = start.network(setup, config)
    shown = masking.summary(model)  # Raises for a network that cannot be pruned, before anything is written.
    if setup.execution.require_alive and shown.dead:
        raise UsageError(f"require_alive needs a path through the network, but {summary.DEAD}: {summary.REMEDY}")
    run.save_masks(masking.masks(model))
    setup.console.line(f"\n{shown}\n")
    return model


@contextlib.contextmanager
def _failures(path: str) -> Iterator[None]:
    """Says in a line what TensorFlow says in many."""
    try:
        yield
    except tf.errors.OpError as error:
        known = of_tensorflow(error)
        if isinstance(known, NoSpaceError):
            known = NoSpaceError(f"no space is left for {path}")
        elif task_index_and_count()[1] > 1 and isinstance(error, _LOST):
            known = RunError("another worker was lost; the same command on all of them resumes from the last checkpoint")
        assert known
        raise known from error
