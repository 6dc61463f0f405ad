r"""Writes the training step of a masked network for machines without TensorFlow: StableHLO, weights, masks, losses.

    python scripts/export_step.py --model=resnet20
    python scripts/export_step.py --model=resnet50 --image_shape=224,224,3 --classes=1000 --checked_batch_size=8

A step is what a run takes on one device: bytes are normalized, forward and backward pass, L2 term, SGD with momentum, masks,
moving statistics. It is not augmented. Images are made up, by the reader of the file too; the losses are those of our own
training on them, which XLA does not compile. Removed weights are written as 0. `scripts/run_step_jax.py` runs the file.
"""

import os
import re
import sys

from absl import app, flags

_MODEL = flags.DEFINE_string("model", "resnet20", "network of tf_pruneinit.main")
_OUT = flags.DEFINE_string("out", None, "file to write; default: MODEL.npz")
_SHAPE = flags.DEFINE_list("image_shape", ["32", "32", "3"], "height, width and channels of an image")
_CLASSES = flags.DEFINE_integer("classes", 10, "number of classes", lower_bound=2)
_PRECISIONS = flags.DEFINE_list("precision", ["float32", "mixed_bfloat16"], "precisions, a program each")
_BATCH = flags.DEFINE_integer("batch_size", 128, "images in one step", lower_bound=1)
_CHECKED = flags.DEFINE_integer("checked_batch_size", None, "images in a recorded step; default: batch_size", lower_bound=1)
_SPARSITY = flags.DEFINE_float("sparsity", 0.9, "fraction of the weights that the mask removes", 0.0, 0.99)
_STEPS = flags.DEFINE_integer("steps", 20, "steps whose losses are recorded", lower_bound=1)
_RATE = flags.DEFINE_float("learning_rate", 0.01, "learning rate", lower_bound=0)
_MOMENTUM = flags.DEFINE_float("momentum", 0.9, "momentum of SGD", 0.0, 0.999)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 1e-4, "weight decay of SGD", 0.0)

# Recorded steps come back to the same few batches, so that the loss falls and a step that trains wrongly shows.
_BATCHES = 2


def network(model: str, shape: tuple[int, ...], classes: int, precision: str, sparsity: float):
    """Returns a network with masks by magnitude, whose removed weights are 0.

    Args:
      model: a row of `registry.MODELS`, or another name that `build` takes.
      shape: of an image.
      classes: number of logits.
      precision: of the layers.
      sparsity: fraction that is removed.
    """
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import masks, prune

    pruned = prune.prune(build.build(model, shape, classes, 0, precision=precision), "magnitude", sparsity)
    for kernel in masks.kernels(pruned).values():
        kernel.variable.assign(kernel.variable.numpy() * kernel.mask.numpy())
    return pruned


def program(model, dataset, plan, *, recorded: int):
    """Returns the step of a network as a `step_file.Program`.

    Args:
      model: the network; it is trained.
      dataset: whose images are trained on.
      plan: hyper-parameters, with the size of a batch and the precision.
      recorded: steps whose losses are recorded; 0 for none.
    """
    import numpy as np
    import step_file

    from tf_pruneinit.training.step import Engine

    engine = Engine(model, dataset, plan)
    text, variables = engine.stablehlo(plan.batch_size)
    state = [np.array(variable.numpy()) for variable in variables]  # Not views: training changes them.
    names = [variable.path for variable in variables]
    indices, losses = _recorded(engine, dataset, plan.batch_size, recorded)
    return step_file.Program(plan.precision, plan.batch_size, text, names, state, _changed(text), indices, losses)


def _recorded(engine, dataset, batch_size: int, steps: int) -> tuple[list, list]:
    """Takes steps as a run does; returns the images and the mean loss of each."""
    from tf_pruneinit.training import step

    indices, losses, epoch = [], [], 0
    while len(losses) < steps:
        (shares,), ((of_epoch, _),) = engine.epoch(0, epoch), step.batches(dataset, batch_size, 0, epoch)
        part = range(min(shares.batches, steps - len(losses)))
        losses += engine.run(shares, part).losses.tolist()
        indices += of_epoch[: len(part)].tolist()
        epoch += 1
    return indices, losses


def _changed(text: str) -> dict[int, int]:
    """Returns which output of a program is the next value of which parameter, as the compiler has written it."""
    pairs = re.findall(r"parameter_number = (\d+) : i64}, output_index = array<i64: (\d+)>", text)
    return {int(output): int(parameter) for parameter, output in pairs}


def export() -> None:
    """Writes the file that the flags describe."""
    import step_file

    from tf_pruneinit.config.experiment import Train
    from tf_pruneinit.datasets.augmentation import AUGMENTATIONS
    from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
    from tf_pruneinit.datasets.split import Split
    from tf_pruneinit.errors import UsageError

    if len(_SHAPE.value) != 3 or not all(n.isdecimal() and int(n) for n in _SHAPE.value):
        raise UsageError(f"image_shape must be height, width and channels, each >= 1; got {','.join(_SHAPE.value)}")
    shape = tuple(map(int, _SHAPE.value))
    checked = _CHECKED.value or _BATCH.value
    split = Split(*step_file.images_and_labels(_BATCHES * checked, shape, _CLASSES.value))
    preprocessing = Preprocessing(255, (0.5,) * shape[2], (0.25,) * shape[2])
    dataset = Dataset("made_up", _CLASSES.value, split, split, preprocessing, AUGMENTATIONS["none"])
    optimizer = {name.name: name.value for name in (_RATE, _MOMENTUM, _WEIGHT_DECAY)}
    sizes = dict.fromkeys((checked, _BATCH.value))
    plans = [Train(batch_size=size, precision=precision, **optimizer) for precision in _PRECISIONS.value for size in sizes]
    programs = []
    for plan in plans:
        model = network(_MODEL.value, shape, _CLASSES.value, plan.precision, _SPARSITY.value)
        programs.append(program(model, dataset, plan, recorded=_STEPS.value if plan.batch_size == checked else 0))
        print(f"{plan.precision}, batch {plan.batch_size}: losses {_ends(programs[-1].losses)}", flush=True)
    about = {"model": _MODEL.value, "shape": shape, "classes": _CLASSES.value, "images": len(split), **optimizer}
    path = _OUT.value or f"{_MODEL.value}.npz"
    step_file.write(path, about, programs)
    print(f"{path}: {os.path.getsize(path) / 1e6:.2f} MB")


def _ends(losses) -> str:
    return f"{losses[0]:.4f} to {losses[-1]:.4f}" if losses else "not recorded"


def main(_) -> None:
    """Writes the file; a mistake is one line and exit code 2."""
    from tf_pruneinit.runtime import command_line

    command_line.start_tensorflow()
    sys.exit(command_line.exit_code(lambda _: export(), []))


if __name__ == "__main__":
    app.run(main)
