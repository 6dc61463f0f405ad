"""What is said of an error is its cause, in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit import errors


def _raised(function, *arguments):
    with pytest.raises(Exception) as caught:
        function(*arguments)
    return caught.value


def _cross_entropy(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_error_of_a_graph_is_its_cause(compiled):
    function = tf.function(_cross_entropy, autograph=False) if compiled else _cross_entropy
    said = errors.reason(_raised(function, tf.constant([0, 1, 5]), tf.zeros((3, 2))))
    assert said.startswith("Received a label value of 5 which is outside the valid range of [0, 2)")


@pytest.mark.parametrize("jit", [False, True])
def test_an_error_of_xla_is_its_cause(jit):
    function = tf.function(lambda x, shape: tf.reshape(x, shape), jit_compile=jit, autograph=False)
    said = errors.reason(_raised(function, tf.zeros((3, 2)), tf.constant([4])))
    assert said == "Input to reshape is a tensor with 6 values, but the requested shape has 4"


@pytest.mark.parametrize("compiled", [False, True])
def test_an_error_inside_a_layer_is_its_cause(compiled):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(5, 3), keras.layers.Flatten(), keras.layers.Dense(2)])
    function = tf.function(model, autograph=False) if compiled else model
    assert errors.reason(_raised(function, tf.fill((2, 4), 9))) == "indices[0,0] = 9 is not in [0, 5)"


def test_what_says_nothing_is_named_by_its_class_and_long_reasons_are_cut():
    assert errors.reason(MemoryError()) == "MemoryError"
    assert len(errors.reason(ValueError("x" * 5000))) == 400


def test_a_reason_that_is_one_line_stays_as_it_is():
    assert errors.reason(OSError(28, "No space left on device")) == "[Errno 28] No space left on device"
    assert errors.reason(tf.errors.DataLossError(None, None, "corrupted record at 12")) == "corrupted record at 12"
    assert errors.reason(ValueError(np.str_("shapes (2,) and (3,) differ"))) == "shapes (2,) and (3,) differ"


@pytest.mark.parametrize(
    "error, kind",
    [
        (errors.DivergedError("out of memory"), "diverged"),
        (errors.NoMemoryError("not finite"), "memory"),
        (MemoryError(), "memory"),
        (errors.NoSpaceError(), "disk"),
        (errors.UsageError("scores must be finite"), "usage"),
        (errors.BusyError(), "usage"),
        (errors.DataError(), "data"),
        (errors.RunError("diverged"), "run"),
        (FileNotFoundError(), "files"),
        (ValueError("not finite"), "defect"),
    ],
)
def test_the_kind_of_an_error_is_that_of_its_class(error, kind):
    assert errors.kind(error) == kind


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("resnet21", ["resnet110", "resnet20", "resnet32", "resnet20x2"], " (did you mean resnet20?)"),
        ("snap", ["snip", "grasp"], " (did you mean snip?)"),
        ("", ["snip"], ""),
        ("unlike", ["snip", "grasp"], ""),
        ("any", [], ""),
    ],
)
def test_a_name_that_is_near_is_suggested(name, names, hint):
    assert errors.did_you_mean(name, names) == hint
