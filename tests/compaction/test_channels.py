"""Which channels reach an output, and which can go, on networks whose masks are set by hand."""

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.compaction import multiply_accumulates
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.compaction.compact_model import compact
from tf_pruneinit.compaction.multiply_accumulates import Work
from tf_pruneinit.pruning import masks as masking

IMAGES = (4, 4, 2)


def network(outputs, masks):
    """A masked model of a function of its input, and its liveness; masks: layer -> (inputs, outputs) of pairs left."""
    inputs = keras.Input(IMAGES)
    model = masking.with_masks(keras.Model(inputs, outputs(inputs)))
    arrays = masking.masks(model)
    for layer, (ins, outs) in masks.items():
        kept = np.zeros(arrays[f"{layer}/kernel"].shape[-2:], np.uint8)
        kept[np.ix_(ins, outs)] = 1
        arrays[f"{layer}/kernel"] = np.broadcast_to(kept, arrays[f"{layer}/kernel"].shape).copy()
    masking.set_masks(model, arrays)
    images = np.random.default_rng(0).normal(size=(3, *IMAGES)).astype("float32")
    for training in (False, True):
        small = compact(model).model
        np.testing.assert_allclose(small(images, training=training), model(images, training=training), rtol=0, atol=1e-5)
    return model, Liveness(model)


def convolution(channels, name, size=1, **options):
    return keras.layers.Conv2D(channels, size, name=name, **options)


def live(model, alive, layer):
    return np.flatnonzero(alive.live(model.get_layer(layer).output)).tolist()


def test_channels_that_nothing_takes_are_dead_and_go():
    every = range(20)
    model, alive = network(
        lambda x: convolution(3, "b")(keras.layers.ReLU()(convolution(20, "a")(x))),
        {"b": ([3, 7], range(3)), "a": ([0], every)},
    )
    assert live(model, alive, "a") == [3, 7]
    assert len(alive.kept(model.get_layer("a").output)) == 8
    assert {3, 7} <= set(alive.kept(model.get_layer("a").output).tolist())
    # 16 places; 2 x 20 and 20 x 3 weights, of which 20 and 6 are left; then 2 x 8 and 8 x 3.
    assert multiply_accumulates.work(alive) == Work(16 * 100, 16 * 26, 16 * 40)


def test_what_leads_to_dead_channels_alone_is_dead():
    model, alive = network(
        lambda x: convolution(2, "c")(convolution(20, "b")(convolution(20, "a")(x))),
        {"c": ([0], [0, 1]), "b": ([1], range(10))},
    )
    assert live(model, alive, "b") == [0]
    assert live(model, alive, "a") == [1]


def test_nothing_that_arrives_is_no_reason_to_go():
    model, alive = network(lambda x: convolution(2, "b")(convolution(20, "a")(x)), {"a": ([], [])})
    assert live(model, alive, "a") == list(range(20))
    assert not alive.removes


def test_channels_that_are_added_go_together():
    def outputs(x):
        a, b = convolution(20, "a")(x), convolution(20, "b")(x)
        return convolution(2, "d")(keras.layers.Concatenate()([keras.layers.Add()([a, b]), convolution(20, "c")(b)]))

    model, alive = network(outputs, {"d": ([*range(9), 25], [0, 1]), "c": ([12], range(20))})
    assert live(model, alive, "a") == list(range(9))
    assert live(model, alive, "b") == [*range(9), 12]
    kept = [alive.kept(model.get_layer(name).output).tolist() for name in "ab"]
    assert kept[0] == kept[1] and len(kept[0]) == 16 and {*range(9), 12} <= set(kept[0])


def test_a_sum_of_half_the_channels_is_of_those_alone():
    def outputs(x):
        a = convolution(32, "a")(x)
        total = keras.layers.Add(name="add")([a, convolution(32, "b")(a)])
        return convolution(2, "c")(keras.layers.BatchNormalization()(total))

    model, alive = network(outputs, {"c": ([30, 31], [0, 1])})
    assert len(alive.kept(model.get_layer("a").output)) == 32
    assert len(alive.kept(model.get_layer("b").output)) == len(alive.kept(model.get_layer("add").output)) == 8
    assert compact(model).model.get_layer("b").bias.shape == (8,)


def test_a_channel_that_is_flattened_goes_with_its_last_place():
    def outputs(x):
        return keras.layers.Dense(2, name="b")(keras.layers.Flatten()(convolution(20, "a")(x)))

    model, alive = network(outputs, {"b": ([3, 3 + 20 * 7, 5 + 20 * 15], [0, 1])})
    assert live(model, alive, "a") == [3, 5]


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: keras.layers.LayerNormalization()(x),
        lambda x: keras.layers.Softmax()(x),
        lambda x: keras.layers.Activation("softmax")(x),
        lambda x: keras.layers.Lambda(lambda y: y[..., ::-1])(x),
        lambda x: keras.Sequential([keras.Input(x.shape[1:]), convolution(20, "inner")])(x),
        lambda x: convolution(20, "groups", groups=2)(x),
    ],
    ids=["layer normalisation", "softmax", "activation softmax", "any function", "nested model", "groups"],
)
def test_what_is_not_known_keeps_all(layer):
    model, alive = network(lambda x: convolution(2, "b")(layer(convolution(20, "a")(x))), {"b": ([3], [0, 1])})
    assert len(alive.kept(model.get_layer("a").output)) == 20


def test_inputs_of_a_dense_layer_are_chosen():
    def outputs(x):
        return keras.layers.Dense(2, name="a")(keras.layers.Flatten()(x))

    model, alive = network(outputs, {"a": (range(5, 20), [0, 1])})
    assert alive.selected(model.get_layer("a")).tolist() == list(range(5, 20))
    assert compact(model).model.get_layer("a").kernel.shape == (15, 2)


def test_a_reshape_that_is_called_twice_keeps_all():
    def outputs(x):
        reshape = keras.layers.Reshape((16, 32))
        ends = [keras.layers.Conv1D(4, 1, name=name)(reshape(convolution(32, f"{name}0")(x))) for name in "ab"]
        return keras.layers.Add()(ends)

    model, alive = network(outputs, {"a": (range(16), range(4))})
    assert len(alive.kept(model.get_layer("a0").output)) == 32


def test_a_flattening_that_is_called_twice_passes_each_channel():
    def outputs(x):
        flatten = keras.layers.Flatten()
        ends = [
            keras.layers.Dense(2, name=name)(flatten(convolution(20, f"{name}0", size)(x)))
            for name, size in (("a", 1), ("b", 2))
        ]
        return keras.layers.Add()(ends)

    model, alive = network(outputs, {"a": (range(0, 320, 20), [0, 1])})
    assert len(alive.kept(model.get_layer("a0").output)) == 8
    assert len(alive.kept(model.get_layer("b0").output)) == 20


def test_an_operation_is_known_if_it_is_in_each_of_its_calls():
    flatten, inputs = keras.layers.Flatten(), [keras.Input((None, 2)), keras.Input((4, 2))]
    ends = [flatten(inputs[0]), keras.layers.Dense(2, name="a")(flatten(inputs[1]))]
    model = masking.with_masks(keras.Model(inputs, ends))
    assert not Liveness(model).known(model.get_layer(flatten.name))
    assert len(tf_pruneinit.ship(model).outputs) == 2


def test_a_layer_that_is_in_a_nested_model_as_well_keeps_all():
    def outputs(x):
        shared = convolution(20, "a")
        inner = keras.Sequential([keras.Input(IMAGES), shared, convolution(2, "inner")])
        return keras.layers.Add()([convolution(2, "b")(shared(x)), inner(x)])

    model, alive = network(outputs, {"b": ([3], [0, 1])})
    assert len(alive.kept(model.get_layer("a").output)) == 20
