"""Scores by the loss of a model, of many kinds of tasks, against derivatives that are written out here in float64."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.datasets.sampling import balanced_batches
from tf_pruneinit.errors import UsageError

L, K = keras.layers, keras.losses
RNG = np.random.default_rng(0)
N = 10
X, OTHER = RNG.normal(size=(N, 5)), RNG.normal(size=(N, 3))
IMAGES = RNG.normal(size=(N, 4, 4, 2))
WORDS = RNG.integers(0, 7, (N, 6))
CLASSES = np.arange(N) % 3
BITS = RNG.integers(0, 2, (N, 3))
NUMBERS = RNG.normal(size=(N, 2))
WEIGHTS = RNG.uniform(0.1, 2, N)


def hidden(inputs):
    return L.Dense(6, "tanh", name="hidden")(inputs)


def dense(units, activation=None, after=lambda x: x, **options):
    def build():
        inputs = keras.Input((5,))
        return keras.Model(inputs, after(L.Dense(units, activation, name="head", **options)(hidden(inputs))))

    return build


def two_inputs():
    inputs = {"a": keras.Input((5,), name="a"), "b": keras.Input((3,), name="b")}
    return keras.Model(inputs, L.Dense(3, name="head")(hidden(L.Concatenate()([inputs["a"], inputs["b"]]))))


def two_outputs():
    inputs = keras.Input((5,))
    x = hidden(inputs)
    return keras.Model(inputs, [L.Dense(3, "softmax", name="kind")(x), L.Dense(2, name="size")(x)])


def segmentation():
    inputs = keras.Input((4, 4, 2))
    return keras.Model(
        inputs, L.Conv2D(3, 1, name="head")(L.Conv2D(4, 3, padding="same", activation="tanh", name="conv")(inputs))
    )


def text():
    inputs = keras.Input((6,), dtype="int32")
    x = L.GlobalAveragePooling1D()(L.Embedding(7, 4, name="words")(inputs))
    return keras.Model(inputs, L.Dense(1, "sigmoid", name="head")(hidden(x)))


def padded(activation=None, end=lambda x: x):
    def build():
        inputs = keras.Input((6,), dtype="int32")
        x = L.SimpleRNN(4, return_sequences=True, name="rnn")(L.Embedding(7, 4, mask_zero=True, name="words")(inputs))
        return keras.Model(inputs, end(L.Dense(3, activation, name="head")(hidden(x))))

    return build


def classes(logits, labels, weights=1.0, smoothing=0.0):
    """Mean softmax cross-entropy of integers."""
    logits = tf.reshape(logits, (-1, logits.shape[-1]))
    soft = tf.one_hot(np.ravel(labels), logits.shape[-1], dtype=tf.float64) * (1 - smoothing) + smoothing / logits.shape[-1]
    return tf.reduce_mean(-weights * tf.reduce_sum(soft * tf.nn.log_softmax(logits), -1))


def bits(logits, labels):
    """Mean cross-entropy of sigmoids."""
    return tf.reduce_mean(tf.nn.softplus(logits) - logits * labels)


def squares(outputs, labels):
    return tf.reduce_mean(tf.square(outputs - labels))


def quartic(labels, outputs):
    """A user's loss, one number for each example."""
    return keras.ops.mean((labels - outputs) ** 4, axis=-1)


def contrast(labels, outputs):
    """A user's loss, one number for the batch, of which examples depend on one another."""
    del labels
    return keras.ops.logsumexp(keras.ops.matmul(outputs, keras.ops.transpose(outputs)))


@dataclasses.dataclass
class Task:
    """A model and data, and its loss of logits (or of outputs, where there are none)."""

    build: Callable[[], keras.Model]
    data: Any
    reference: Callable[..., tf.Tensor]
    compiled: Any = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    tempered: tuple[bool, ...] = (True,)


PADDED = np.where(np.arange(6) < 1 + np.arange(N)[:, None] % 6, 1 + WORDS % 6, 0)
EACH_WORD, OF_EACH_WORD = RNG.integers(0, 3, (N, 6)), RNG.uniform(0.1, 2, (N, 6))
# So that the mean over all positions is that over those that padding leaves.
LEFT = (PADDED > 0) * PADDED.size / (PADDED > 0).sum()
SOFT = np.abs(NUMBERS[:, :1]) * [[1, 2, 3]] + 0.1
SOFT /= SOFT.sum(-1, keepdims=True)
from_logits = {"from_logits": True}
TASKS = {
    "classes, no loss": Task(dense(3), (X, CLASSES), lambda o: classes(o, CLASSES)),
    "classes in a column": Task(dense(3), (X, CLASSES[:, None]), lambda o: classes(o, CLASSES)),
    "softmax, no loss": Task(dense(3, "softmax"), (X, np.eye(3)[CLASSES]), lambda o: classes(o, CLASSES)),
    "softmax, compiled": Task(
        dense(3, "softmax"), (X, CLASSES), lambda o: classes(o, CLASSES), {"loss": "sparse_categorical_crossentropy"}
    ),
    "softmax, then a cast and a reshape": Task(
        dense(3, "softmax", lambda x: L.Reshape((3,))(L.Reshape((1, 3))(L.Activation("linear")(x)))),
        (X, np.eye(3)[CLASSES]),
        lambda o: classes(o, CLASSES),
        {"loss": "categorical_crossentropy"},
    ),
    "soft labels": Task(dense(3), (X, SOFT), lambda o: tf.reduce_mean(-tf.reduce_sum(SOFT * tf.nn.log_softmax(o), -1))),
    "smoothed labels": Task(
        dense(3),
        (X, np.eye(3)[CLASSES]),
        lambda o: classes(o, CLASSES, smoothing=0.2),
        {"loss": K.CategoricalCrossentropy(label_smoothing=0.2, **from_logits)},
    ),
    "one unit": Task(dense(1, "sigmoid"), (X, BITS[:, 0]), lambda o: bits(o, BITS[:, :1]), {"loss": "binary_crossentropy"}),
    "many labels": Task(dense(3, "sigmoid"), (X, BITS), lambda o: bits(o, BITS), {"loss": K.BinaryCrossentropy()}),
    "many labels, logits": Task(
        dense(3), (X, BITS), lambda o: bits(o, BITS), options={"loss": K.BinaryCrossentropy(**from_logits)}
    ),
    "regression": Task(dense(2), (X, NUMBERS), lambda o: squares(o, NUMBERS), {"loss": "mse"}, tempered=(False,)),
    "given, not the compiled": Task(
        dense(2), (X, NUMBERS), lambda o: squares(o, NUMBERS), {"loss": "mae"}, {"loss": "mse"}, tempered=(False,)
    ),
    "counts": Task(
        dense(2, "softplus"),
        (X, NUMBERS**2),
        lambda o: tf.reduce_mean(o - NUMBERS**2 * tf.math.log(o + 1e-7)),
        {"loss": K.Poisson()},
        tempered=(False,),
    ),
    "a function": Task(
        dense(2), (X, NUMBERS), lambda o: tf.reduce_mean((o - NUMBERS) ** 4), {"loss": quartic}, tempered=(False,)
    ),
    "a function of the batch": Task(
        dense(2),
        (X, NUMBERS),
        lambda o: tf.reduce_logsumexp(o @ tf.transpose(o)),
        options={"loss": contrast},
        tempered=(False,),
    ),
    "segmentation": Task(
        segmentation,
        (IMAGES, WORDS[:, :4, None] % 3 + np.zeros((1, 1, 4), int)),
        lambda o: classes(o, np.repeat(WORDS[:, :4] % 3, 4)),
    ),
    "text": Task(text, (WORDS, BITS[:, :1]), lambda o: bits(o, BITS[:, :1]), {"loss": "binary_crossentropy"}),
    "two inputs": Task(two_inputs, ({"b": OTHER, "a": X}, CLASSES), lambda o: classes(o, CLASSES)),
    "two outputs": Task(
        two_outputs,
        (X, {"size": NUMBERS, "kind": CLASSES}),
        lambda kind, size: classes(kind, CLASSES) + 0.3 * squares(size, NUMBERS),
        {"loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"}, "loss_weights": {"kind": 1.0, "size": 0.3}},
        tempered=(True, False),
    ),
    "one of two outputs": Task(
        two_outputs,
        (X, [CLASSES, NUMBERS]),
        lambda kind, size: squares(size, NUMBERS),
        {"loss": [None, "mse"]},
        tempered=(False, False),
    ),
    "sample weights": Task(dense(3), (X, CLASSES, WEIGHTS), lambda o: classes(o, CLASSES, WEIGHTS)),
    "sample weights of regression": Task(
        dense(2),
        (X, NUMBERS, WEIGHTS),
        lambda o: tf.reduce_mean(WEIGHTS[:, None] * tf.square(o - NUMBERS)),
        {"loss": "mse"},
        tempered=(False,),
    ),
    "sample weights in a column": Task(dense(3), (X, CLASSES, WEIGHTS[:, None]), lambda o: classes(o, CLASSES, WEIGHTS)),
    "weights of examples and of classes": Task(
        dense(3),
        (X, CLASSES, WEIGHTS[:, None]),
        lambda o: classes(o, CLASSES, WEIGHTS * np.where(CLASSES == 1, 5.0, 1.0)),
        options={"class_weight": {1: 5.0}},
    ),
    "padding": Task(padded(), (PADDED, EACH_WORD), lambda o: classes(o, EACH_WORD, LEFT.ravel())),
    "padding and a softmax, weights of words": Task(
        padded("softmax"),
        (PADDED, EACH_WORD, OF_EACH_WORD[:, :, None]),
        lambda o: classes(o, EACH_WORD, (LEFT * OF_EACH_WORD).ravel()),
        {"loss": "sparse_categorical_crossentropy"},
    ),
    "class weights": Task(
        dense(3),
        (X, CLASSES),
        lambda o: classes(o, CLASSES, np.where(CLASSES == 1, 5.0, 1.0)),
        options={"class_weight": {1: 5.0}},
    ),
}


def built(task, dtype):
    """The model of a task, of this type and always the same weights, and the same without what makes probabilities."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        model = task.build()
        rng = np.random.default_rng(1)
        for variable in model.weights:
            variable.assign((rng.normal(size=variable.shape) / np.sqrt(variable.shape[0])).astype("float32"))
        if task.compiled:
            model.compile("sgd", **task.compiled)
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
    return model


def reference(task, method, temperature):
    """Scores by the formulas of the papers, of a model in float64 whose last layers are linear."""
    model = built(task, "float64")
    for layer in model.layers:
        if getattr(layer, "activation", None) in (keras.activations.softmax, keras.activations.sigmoid):
            layer.activation = keras.activations.linear
    kernels = [variable for variable in model.trainable_variables if "kernel" in variable.path]
    values = [variable.value for variable in kernels]
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
        outputs = zip(keras.tree.flatten(model(task.data[0])), task.tempered, strict=True)
        loss = task.reference(*(output / temperature if tempered else output for output, tempered in outputs))
        gradients = inner.gradient(loss, values, unconnected_gradients="zero")
        half = tf.add_n([tf.reduce_sum(g * tf.stop_gradient(g)) for g in gradients])
    if method == "snip":
        return [np.abs(w * g) for w, g in zip(values, gradients, strict=True)]
    return [w * h for w, h in zip(values, outer.gradient(half, values, unconnected_gradients="zero"), strict=True)]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("task", TASKS)
class TestTasks:
    def require(self, got, expected, tolerance):
        for (path, values), wanted in zip(got.items(), expected, strict=True):
            error, size = np.linalg.norm(values - wanted), np.linalg.norm(wanted)
            assert error <= tolerance * max(size, 1e-9), path

    def data(self, task, precision):
        def cast(array):
            return array.astype(precision) if array.dtype.kind == "f" else array

        inputs, labels, *weights = task.data
        return keras.tree.map_structure(cast, inputs), labels, *weights

    def test_snip_in_float32(self, task):
        task = TASKS[task]
        model, data = built(task, "float32"), self.data(task, "float32")
        got = tf_pruneinit.score(model, "snip", data, **task.options)
        self.require(got, reference(task, "snip", 1.0), 2e-6)

    @pytest.mark.filterwarnings("ignore")
    def test_grasp_in_float64_divides_logits_by_its_temperature(self, task):
        task = TASKS[task]
        model, data = built(task, "float32"), self.data(task, "float64")
        got = tf_pruneinit.score(model, "grasp", data, temperature=3.0, precision="float64", **task.options)
        self.require(got, reference(task, "grasp", 3.0), 5e-10)


CLASSIFIED = X.astype("float32"), CLASSES


def score(model, method="snip", data=CLASSIFIED, **options):
    return tf_pruneinit.score(model, method, data, **options)


def require_close(got, expected, tolerance=1e-6):
    for path, values in expected.items():
        np.testing.assert_allclose(got[path], values, rtol=tolerance, atol=tolerance * np.abs(values).max())


@pytest.mark.usefixtures("eagerly")
class TestTheLoss:
    def test_what_the_temperature_does_not_divide_is_said(self):
        with pytest.warns(UserWarning, match="the temperature of grasp divides logits, which this loss does not take: it is 1"):
            score(dense(2)(), "grasp", (X.astype("float32"), NUMBERS), loss="mse")

    def test_a_softmax_that_the_model_uses_elsewhere_stays(self):
        def build(shared):
            inputs = keras.Input((5,))
            logits = L.Dense(3, name="first")(inputs)
            kinds = L.Softmax()(logits) if shared else L.Lambda(lambda x: keras.ops.softmax(x))(logits)
            return keras.Model(inputs, [kinds, L.Dense(2, name="second")(kinds)])

        models = [build(shared) for shared in (True, False)]
        models[1].set_weights(models[0].get_weights())
        options = {"loss": ["sparse_categorical_crossentropy", "mse"], "data": (X.astype("float32"), [CLASSES, NUMBERS])}
        require_close(*(score(model, **options) for model in models), 1e-5)

    def test_a_softmax_before_a_loss_of_logits_is_left_out_as_keras_does(self):
        models = [dense(3, activation)() for activation in ("softmax", None)]
        models[1].set_weights(models[0].get_weights())
        require_close(*(score(model, loss=K.SparseCategoricalCrossentropy(from_logits=True)) for model in models))

    @pytest.mark.parametrize(
        "loss",
        [
            K.BinaryFocalCrossentropy(from_logits=True),  # Behind a sigmoid Keras computes another one.
            K.BinaryFocalCrossentropy(),
            K.BinaryCrossentropy(label_smoothing=0.2),
            K.BinaryFocalCrossentropy(gamma=1.0, apply_class_balancing=True, alpha=0.3),
        ],
    )
    def test_options_of_a_cross_entropy_stay_where_it_is_of_logits(self, loss):
        model, data = dense(3, "sigmoid")(), (X.astype("float32"), BITS.astype("float32"))
        kernels = [model.get_layer(name).kernel for name in ("hidden", "head")]
        with tf.GradientTape() as tape:
            value = loss(data[1], model(data[0]))
        gradients = tape.gradient(value, [kernel.value for kernel in kernels])
        got = score(model, data=data, loss=loss)
        expected = [np.abs(w.numpy() * g.numpy()) for w, g in zip(kernels, gradients, strict=True)]
        require_close(got, dict(zip(got, expected, strict=True)), 1e-5)

    def test_regularizers_count_if_they_are_asked_for(self):
        model = dense(3, kernel_regularizer=keras.regularizers.L2(0.3))()
        plain, regularized = score(model), score(model, regularizers=True)
        with tf.GradientTape() as tape:
            loss = K.SparseCategoricalCrossentropy(from_logits=True)(CLASSES, model(X.astype("float32"))) + sum(model.losses)
        kernels = [model.get_layer(name).kernel for name in ("hidden", "head")]
        gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
        expected = [np.abs(w.numpy() * g.numpy()) for w, g in zip(kernels, gradients, strict=True)]
        require_close(regularized, dict(zip(regularized, expected, strict=True)), 1e-5)
        assert not np.allclose(plain["head/kernel"], regularized["head/kernel"])

    def test_regularizers_of_what_is_not_pruned_count_too(self):
        """Keras reads them in a scope in which only kernels have values."""
        options = {"bias_regularizer": keras.regularizers.L2(0.3), "kernel_regularizer": keras.regularizers.L2(0.3)}
        with_bias, without = dense(3, **options)(), dense(3, kernel_regularizer=keras.regularizers.L2(0.3))()
        without.set_weights(with_bias.get_weights())
        require_close(*(score(model, regularizers=True) for model in (with_bias, without)))

    def test_padding_does_not_count_if_an_operation_behind_the_logits_has_no_mask(self):
        """As Keras trains it: its operations lose the mask."""
        models = [padded(end=end)() for end in (keras.ops.softmax, lambda x: L.Lambda(lambda y: keras.ops.softmax(y))(x))]
        models[1].set_weights(models[0].get_weights())
        data = PADDED, EACH_WORD
        got, expected = (score(model, data=data, loss="sparse_categorical_crossentropy") for model in models)
        assert keras.backend.standardize_dtype(got["head/kernel"].dtype) == "float32"
        require_close(got, expected, 1e-5)

    @pytest.mark.parametrize(
        ("build", "loss", "labels"),
        [
            (dense(3), K.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), CLASSES),
            (dense(3), K.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0), CLASSES),
            (padded(), None, EACH_WORD),
        ],
    )
    def test_gradients_of_batches_are_averaged_of_means_over_examples_alone(self, build, loss, labels):
        data = PADDED if labels.ndim == 2 else X.astype("float32")
        batches = [(data[part], labels[part]) for part in (slice(7), slice(7, 10))]
        with pytest.raises(UsageError, match="accumulate='gradients' needs a loss that is a mean over examples"):
            score(build(), data=batches, loss=loss, accumulate="gradients")
        score(build(), data=[(data, labels)], loss=loss, accumulate="gradients")

    def test_a_function_that_changes_is_traced_again(self):
        factor = 1.0

        def loss(labels, outputs):
            return factor * keras.ops.mean((labels - outputs) ** 2)

        model, data = dense(2)(), (X.astype("float32"), NUMBERS)
        once = score(model, data=data, loss=loss)
        factor = 2.0
        require_close(score(model, data=data, loss=loss), {path: 2 * z for path, z in once.items()})

    def test_two_losses_of_one_architecture_are_not_mistaken(self):
        model, data = dense(2)(), (X.astype("float32"), NUMBERS)
        first = score(model, data=data, loss=K.Huber(0.1))
        second = score(model, data=data, loss=K.Huber(1.0))
        assert not np.allclose(first["head/kernel"], second["head/kernel"])

    @pytest.mark.parametrize("kind", ["tf.data", "generator", "PyDataset"])
    def test_data_comes_as_fit_takes_it(self, kind):
        model = two_inputs()
        inputs = {"a": X.astype("float32"), "b": OTHER.astype("float32")}
        batches = [({name: x[part] for name, x in inputs.items()}, CLASSES[part]) for part in (slice(5), slice(5, 10))]

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return len(batches)

            def __getitem__(self, index):
                return batches[index]

        data = {
            "tf.data": lambda: tf.data.Dataset.from_tensor_slices((inputs, CLASSES)).batch(5),
            "generator": lambda: (batch for batch in batches),
            "PyDataset": Batches,
        }[kind]()
        expected = score(model, data=batches)
        require_close(score(model, data=data), expected)

    def test_weights_come_with_each_batch(self):
        x, weights = X.astype("float32"), WEIGHTS.astype("float32")
        batches = [(x[part], CLASSES[part], weights[part]) for part in (slice(5), slice(5, 10))]
        model = dense(3)()
        require_close(score(model, data=batches, accumulate="gradients"), score(model, data=(x, CLASSES, weights)), 1e-5)


class Sevens:
    """A user's loss that is an object, and gives seven numbers."""

    def __call__(self, labels, outputs):
        return keras.ops.ones(7) * keras.ops.sum(outputs)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    "labels", [BITS[:, 0], BITS[:, :1], BITS[:, 0].astype("float32")], ids=["integers", "column", "floats"]
)
def test_batches_of_any_classes_are_balanced(labels):
    """By a loss that is not the cross-entropy of logits: the classes are in order, and each batch has both."""
    model, order = dense(1, "sigmoid")(), np.argsort(labels.ravel(), kind="stable")
    x, y = X[order].astype("float32"), labels[order]
    parts = balanced_batches(y.ravel(), 5)
    expected = score(model, data=[(x[part], y[part]) for part in parts], loss="binary_crossentropy")
    require_close(score(model, data=(x, y), loss="binary_crossentropy", batch_size=5), expected)


BROKEN = [
    (dense(3), {"loss": "mes"}, "loss must be a Keras loss, its name, or a function .*; got 'mes'"),
    (dense(3), {"loss": "binary_crossentrop"}, r"\(did you mean binary_crossentropy\?\)"),
    (dense(3), {"loss": 3}, "loss must be a Keras loss"),
    (dense(3), {"loss": {"body": "mse"}}, "loss must be for the outputs head; got 'body'"),
    (dense(3), {"loss": "mse", "loss_weights": "much"}, "loss_weights must be a number for each loss"),
    (dense(3), {"loss": lambda labels: 0.0}, "loss loss must take these labels, .*positional argument"),
    (dense(3), {"loss": Sevens()}, r"loss Sevens must give one number, or one for each example; got .*\(7,\)"),
    (dense(3), {"loss": functools.partial(Sevens().__call__)}, "loss partial must give one number, or one for each example"),
    (dense(3), {"loss": lambda labels, outputs: outputs[:7, 0]}, "must give one number, or one for each example; got .*(7,)"),
    (
        dense(3),
        {"loss": lambda labels, outputs: keras.ops.sum(outputs) * np.nan},
        "the loss of the examples must be finite; got nan",
    ),
    (dense(3), {"loss": K.CategoricalCrossentropy(), "data": (X, NUMBERS)}, "loss .* must take these labels"),
    (dense(3), {"class_weight": {"cat": 2}}, "class_weight must be a dict"),
    (padded(), {"data": (PADDED, EACH_WORD, EACH_WORD[:, :4] + 1)}, "sample weights must be for each example, or for each pos"),
    (
        dense(3),
        {"class_weight": {0: 2}, "loss": "mse", "data": (X, NUMBERS)},
        "class_weight needs labels of one output that are",
    ),
    (dense(3), {"regularizers": 1}, "regularizers must be true or false"),
    (
        dense(3, "sigmoid"),
        {},
        "of a model without a loss, .*; got outputs of a sigmoid: compile the model with a loss, or give",
    ),
    (dense(1), {}, r"got outputs of the shape \(None, 1\): compile"),
    (two_outputs, {}, "got 2 outputs: compile the model"),
    (two_outputs, {"loss": "mse"}, "labels must be for each output with a loss, kind, size; got an array"),
    (two_outputs, {"loss": ["mse"]}, "loss must be for the outputs kind, size; got a list of 1"),
    (two_outputs, {"loss": [None, None]}, "loss must be for one output at least; got none"),
    (two_outputs, {"loss": "mse", "data": (X, {"kind": NUMBERS})}, "got none for size"),
    (two_inputs, {}, "data must have the model's inputs a, b, as a list or a dict; got an array"),
    (two_inputs, {"data": ({"a": X}, CLASSES)}, "data must have the model's inputs a, b, by these names; got none for b"),
    (two_inputs, {"data": ({"a": X, "b": OTHER[:4]}, CLASSES)}, "inputs must have the same number of examples; got 10, 4"),
    (two_inputs, {"data": ({"a": X, "b": X}, CLASSES)}, r"input b must be a batch of the model's input shape \(3,\)"),
    (
        text,
        {"method": "synflow"},
        "synflow needs a model with floating-point inputs .*; got int32 .*: score by a method with data",
    ),
    (text, {"method": "ntk_sap"}, "ntk_sap needs a model with floating-point inputs"),
    (
        dense(3, None, lambda x: L.Lambda(lambda y: keras.ops.softmax(y))(x)),
        {},
        r"got outputs of functional.* in \[0, 1\], as probabilities are: compile the model",
    ),
]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(("build", "options", "message"), BROKEN)
def test_a_loss_that_cannot_be_computed_is_one_clear_error(build, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        score(build(), **options)
    assert "\n" not in str(caught.value)


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred)


@pytest.mark.usefixtures("eagerly")
def test_a_class_with_a_loss_of_its_own_needs_it_to_be_given():
    inputs = keras.Input((5,))
    model = OwnLoss(inputs, L.Dense(3)(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(UsageError, match=r"has a compute_loss\(\) of its own: give the loss as loss="):
        score(model)
    score(model, loss="sparse_categorical_crossentropy")


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp_abs", "synflow", "ntk_sap", "prospr", "force", "phew"])
def test_every_method_prunes_models_of_several_inputs_and_outputs(method):
    inputs = [keras.Input((5,), name="a"), keras.Input((3,), name="b")]
    x = hidden(L.Concatenate()(inputs))
    model = keras.Model(inputs, {"kind": L.Dense(4, "softmax", name="kind")(x), "size": L.Dense(2, name="size")(x)})
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "size": "mse"})
    data = [X.astype("float32"), OTHER.astype("float32")], {"kind": CLASSES, "size": NUMBERS}
    pruned = tf_pruneinit.prune(model, method, 0.5, data, iterations=1)
    assert sum(int(mask.sum()) for mask in tf_pruneinit.masks(pruned).values()) == round(0.5 * (8 * 6 + 6 * 4 + 6 * 2))
    assert pruned.loss == model.loss
    outputs = pruned(data[0])
    assert sorted(outputs) == ["kind", "size"]


@pytest.mark.usefixtures("eagerly")
def test_synflow_sums_over_all_outputs_for_ones_in_each_input():
    inputs = [keras.Input((5,), name="a"), keras.Input((3,), name="b")]
    one, other = (L.Dense(2, use_bias=False, name=name)(x) for name, x in zip("cd", inputs, strict=True))
    model = keras.Model(inputs, [one, other])
    scores = score(model, "synflow")
    for name in "cd":
        np.testing.assert_allclose(scores[f"{name}/kernel"], np.abs(model.get_layer(name).kernel.numpy()), rtol=1e-6)
