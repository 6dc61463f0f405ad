"""Callbacks in a user's own training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tf_pruneinit
from tf_pruneinit.pruning import masks as masking

EPOCHS = 3


def build():
    layers = [keras.layers.Dense(6, name="first"), keras.layers.Dense(2, name="last")]
    return keras.Sequential([keras.Input((5,)), *layers], name="toy")


def fit(model, log_dir, epochs=EPOCHS, callbacks=(), **options):
    model.compile("sgd", "mse", run_eagerly=True)
    images, labels = np.ones((8, 5), "float32"), np.ones((8, 2), "float32")
    logger = tf_pruneinit.callbacks.SparsityLogger(str(log_dir))
    model.fit(images, labels, epochs=epochs, batch_size=4, callbacks=[*callbacks, logger], verbose=0, **options)
    return model


def scalars(log_dir) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: name -> (step, value) in order."""
    events = EventAccumulator(str(log_dir)).Reload()
    return {
        name: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]
        for name in events.Tags()["tensors"]
    }


@pytest.mark.slow
def test_densities_of_each_kernel_and_of_all_are_written_at_every_epoch_from_zero(tmp_path):
    model = tf_pruneinit.prune(build(), "magnitude", 0.75, min_remaining=1)
    masks = masking.masks(model)
    fit(model, tmp_path / "logs")
    expected = {f"density/{path}": mask.mean() for path, mask in masks.items()}
    expected["density/all"] = round(0.25 * 42) / 42
    found = scalars(tmp_path / "logs")
    assert set(found) == set(expected)
    for name, events in found.items():
        assert [step for step, _ in events] == list(range(EPOCHS + 1))
        assert [value for _, value in events] == pytest.approx([expected[name]] * (EPOCHS + 1))


def test_density_of_all_weighs_kernels_by_their_size(tmp_path):
    model = masking.with_masks(build())
    masking.set_masks(model, {"toy/last/kernel": np.zeros((6, 2))})
    fit(model, tmp_path, epochs=1)
    assert {name: events[0][1] for name, events in scalars(tmp_path).items()} == pytest.approx(
        {"density/toy/first/kernel": 1, "density/toy/last/kernel": 0, "density/all": 30 / 42}
    )


@pytest.mark.slow
def test_masks_that_change_in_training_show(tmp_path):
    class Halve(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                masking.set_masks(self.model, {"toy/first/kernel": np.tile([0, 1], (5, 3))})

    fit(masking.with_masks(build()), tmp_path, callbacks=[Halve()])
    assert [value for _, value in scalars(tmp_path)["density/toy/first/kernel"]] == pytest.approx([1, 1, 0.5, 0.5])


def test_model_without_masks_is_dense(tmp_path):
    fit(build(), tmp_path, epochs=1)
    assert scalars(tmp_path) == {"density/all": [(0, 1.0), (1, 1.0)]}


@pytest.mark.slow
def test_training_that_goes_on_continues_its_steps(tmp_path):
    model = fit(masking.with_masks(build()), tmp_path / "a", epochs=2)
    fit(model, tmp_path / "b", epochs=4, initial_epoch=2)
    assert [step for step, _ in scalars(tmp_path / "b")["density/all"]] == [2, 3, 4]


@pytest.mark.slow
def test_folder_may_be_a_path_object_as_for_keras_own_callbacks(tmp_path):
    model = masking.with_masks(build())
    model.compile("sgd", "mse")
    logger = tf_pruneinit.callbacks.SparsityLogger(tmp_path / "logs")
    model.fit(np.ones((4, 5)), np.ones((4, 2)), callbacks=[logger], verbose=0)
    assert len(scalars(tmp_path / "logs")["density/all"]) == 2


@pytest.mark.slow
def test_one_logger_serves_several_trainings(tmp_path):
    model = masking.with_masks(build())
    model.compile("sgd", "mse")
    logger = tf_pruneinit.callbacks.SparsityLogger(str(tmp_path))
    for _ in range(2):
        model.fit(np.ones((4, 5)), np.ones((4, 2)), callbacks=[logger], verbose=0)
    assert {value for _, value in scalars(tmp_path)["density/all"]} == {1.0}
