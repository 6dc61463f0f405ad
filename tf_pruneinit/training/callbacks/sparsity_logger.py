"""Logs sparsity in a user's own `model.fit`."""

import os

import keras

from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.runtime import tensorboard


class SparsityLogger(keras.callbacks.Callback):
    """Writes the density of each masked kernel, and of all together, to TensorBoard before the first epoch and after each.

        model.fit(images, labels, callbacks=[tf_pruneinit.callbacks.SparsityLogger("logs")])

    The scalars are `density/<kernel path>` and `density/all`, fractions that remain; the step is the epoch.
    """

    def __init__(self, log_dir: str | os.PathLike[str]):
        """Takes the directory of event files, which need not exist."""
        super().__init__()
        self._log_dir = log_dir

    def on_train_begin(self, logs=None):
        """Opens a file of events."""
        self._write = tensorboard.writer(self._log_dir)
        self._begun = False

    def on_epoch_begin(self, epoch, logs=None):
        """Writes the densities before the first epoch, at its number (0 unless training resumes)."""
        if not self._begun:
            self._log(epoch)
        self._begun = True

    def on_epoch_end(self, epoch, logs=None):
        """Writes the densities after an epoch."""
        self._log(epoch + 1)

    def _log(self, step: int) -> None:
        masks = masking.masks(self.model)
        values = {f"density/{path}": float(mask.mean()) for path, mask in masks.items()}
        total = sum(mask.size for mask in masks.values())
        values["density/all"] = sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0
        self._write(step, values)
