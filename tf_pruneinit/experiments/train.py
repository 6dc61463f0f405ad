"""Trains a run: on the chief, which saves it, and on the other workers, which train with it."""

import dataclasses
from collections.abc import Callable

import keras

from tf_pruneinit.compaction import compact_model, multiply_accumulates
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import RunError
from tf_pruneinit.experiments import multi_worker, resume, run_directory, start
from tf_pruneinit.experiments.multi_worker import Order
from tf_pruneinit.experiments.progress import TrainingProgress
from tf_pruneinit.experiments.resume import Found
from tf_pruneinit.experiments.run_directory import Run
from tf_pruneinit.experiments.setup import Setup
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.dynamic import schedule
from tf_pruneinit.runtime import preemption, tensorboard
from tf_pruneinit.training import loop
from tf_pruneinit.training.records import Record


def train(setup: Setup, run: Run, model: keras.Model, order: Order) -> list[Record]:
    """Trains a run, and writes its records, checkpoints and snapshots.

    Args:
      setup: the lineage that the run belongs to.
      run: its directory, locked by this process.
      model: its network, with masks. It is changed.
      order: where training begins and ends, and what is saved.

    Returns:
      All records, also those of earlier processes; none if training ended before the first.

    Raises:
      DivergedError: if a loss is not finite.
      Preempted: if the process receives SIGTERM; a checkpoint is written first.
      RunError: if the records are damaged, or the checkpoint does not fit the network.
    """
    config = setup.lineage[order.run]
    settings = dataclasses.replace(setup.settings, compact=order.compact).to_json()
    saving = loop.Saving(
        checkpoint=lambda step, arrays, state: run.save_checkpoint(step, arrays, state | {"execution": settings}),
        every=setup.checkpoint_every,
        snapshot=run.save_snapshot,
        snapshot_steps=order.snapshot_steps,
    )
    progress = TrainingProgress(setup.console)
    multi_worker.send(setup.workers, order, model)
    training = _training(setup, order, model, saving, progress)
    recorded = order.state.get("recorded", 0)
    records = run.resume_after(0 if recorded == setup.first_step(config) else recorded)
    write_scalars = tensorboard.writer(run.file(run_directory.TENSORBOARD), config.hyperparameters(), config.address)
    for record in records:
        write_scalars(record.step, record.scalars())
    with preemption.deferred():
        try:
            for record in training.records():
                record = dataclasses.replace(record, method=config.method)
                run.append(record)
                records.append(record)
                write_scalars(record.step, record.scalars())
                progress.evaluated(record)
        except preemption.Preempted as error:
            step = training.checkpoint()
            command = "the same command without overwrite" if setup.execution.overwrite else "the same command"
            raise preemption.Preempted(f"preempted (SIGTERM); {command} resumes from step {step:,}") from error
    return records


def replay(setup: Setup, run: Run, config: Config, found: Found, missing: tuple[int, ...]) -> None:
    """Trains a run once more, to the same bits, for weights that it did not save; changes nothing else.

    Args:
      setup: the lineage that the run belongs to.
      run: its directory, locked by this process.
      config: its configuration.
      found: what an earlier process left of it.
      missing: the steps whose weights are saved, in order.

    Raises:
      UsageError: if the run was trained under other settings.
    """
    resume.require_same_settings(setup, run, config, found)
    setup.console.line(f"trains once more for the weights of step {', '.join(map(str, missing))}: {run.path}")
    model = start.network(setup, config)
    if not (config.prune and config.prune.changes):  # Those that change in training may have been saved at its end.
        masking.assign_masks(model, resume.masks_of(run, config))
    assert found.settings
    order = Order(setup.lineage.index(config), max(missing), missing, found.settings.compact, replay=True)
    multi_worker.send(setup.workers, order, model)
    saving = loop.Saving(snapshot=run.save_snapshot, snapshot_steps=missing)
    for _ in _training(setup, order, model, saving, TrainingProgress(setup.console)).records():
        pass


def follow(setup: Setup) -> None:
    """Trains what the chief trains, on a worker that is not the chief, until it sends no more orders. Saves nothing.

    Raises:
      Preempted: if this worker or another one receives SIGTERM.
    """
    while message := multi_worker.receive(setup.workers):
        order, weights = message
        model = setup.masked_network(setup.lineage[order.run], {})
        for variable, value in zip(model.variables, weights, strict=True):
            variable.assign(value)
        every = Interval() if order.replay else setup.checkpoint_every
        saving = loop.Saving(every=every, snapshot_steps=order.snapshot_steps)
        training = _training(setup, order, model, saving, TrainingProgress(setup.console))
        with preemption.deferred():
            try:
                for _ in training.records():
                    pass
            except preemption.Preempted as error:
                training.checkpoint()
                raise preemption.Preempted("preempted (SIGTERM), this worker or another one") from error


def trains_compact(setup: Setup, run: Run, config: Config, model: keras.Model, found: Found) -> bool:
    """Returns whether a run trains the smaller network without dead channels: if it resumes, as it began.

    Args:
      setup: the lineage that the run belongs to.
      run: its directory.
      config: its configuration.
      model: its network, with masks.
      found: what an earlier process left of it.

    Raises:
      UsageError: if it began otherwise, and the user requests this.
    """
    requested = setup.execution.compact
    if config.prune and config.prune.changes:
        return False  # Weights may regrow, or it is not known yet which are removed.
    if requested == "auto" and found.settings:
        return found.settings.compact
    compact = False
    if requested != "false":
        alive = Liveness(model)
        images = setup.steps * config.train.batch_size
        compact = alive.removes if requested == "true" else compact_model.pays(alive, images)
        if compact and (work := multiply_accumulates.work(alive)):
            share = f"{work.compact / max(1, work.dense):.1%} of the multiply-accumulates"
            setup.console.line(f"trains a smaller network, without dead channels: {share}")
    if found.settings:
        resume.require_same_settings(setup, run, config, found, compact)
    return compact


def _training(
    setup: Setup, order: Order, model: keras.Model, saving: loop.Saving, progress: Callable[[loop.Progress], None]
) -> loop.Training:
    """The training of an order, alike on every worker."""
    config = setup.lineage[order.run]
    if config.train.zeroes_removed:
        masking.set_removed_to_zero(model)
    compact = compact_model.compact(model) if order.compact else None
    training = loop.Training(
        compact.model if compact else model,
        setup.dataset,
        config.train,
        seed=config.seed,
        saving=saving,
        first=setup.first_step(config),
        until=order.until,
        recording=not order.replay,
        updates=schedule.updates(config, setup.steps, setup.steps_per_epoch),
        expansion=compact,
        reuse=True,
        on_progress=progress,
        devices=setup.settings.devices,
        jit=setup.settings.xla,
        sync_batch_norm=setup.settings.sync_batch_norm,
    )
    if order.state and not training.restore(order.arrays, order.state):
        rule = f"the checkpoint in {setup.directory(config)} is of another version of this package"
        raise RunError(f"{rule}; --overwrite retrains")
    return training
