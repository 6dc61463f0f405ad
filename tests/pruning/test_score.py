import dataclasses
import functools
import inspect
import itertools
import math
import sys
import threading
import warnings
import weakref

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tf_pruneinit
from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.models import build
from tf_pruneinit.pruning import compiled_scorer, scoring_data, selection
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import score as scoring
from tf_pruneinit.runtime import machine

L = keras.layers
RNG = np.random.default_rng(0)
CLASSES = 4
DATA = RNG.normal(size=(12, 6, 6, 1)).astype("float32"), np.arange(12) % CLASSES
IMAGES, LABELS = DATA
KERNELS = {"conv/kernel": (3, 3, 1, 3), "fc/kernel": (48, CLASSES)}

every_method = pytest.mark.parametrize("method", registry.METHODS)
METHODS_WITH_DATA = [name for name, row in registry.METHODS.items() if row.needs_data]
DIFFERENTIABLE = [*METHODS_WITH_DATA, "synflow"]


@pytest.fixture
def nothing_compiled():
    compiled_scorer._compiled.clear()


def network(activation=None, head=None, policy=None, seed=1, normalised=True, dropout=None, outputs=None):
    """Convolution, Keras' own batch normalisation, dense layer, with weights and statistics that are nothing special."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy or before)
    inputs = keras.Input((6, 6, 1), name="images")
    x = L.Conv2D(3, 3, name="conv")(inputs)
    x = L.BatchNormalization(name="bn")(x) if normalised else x
    x = L.Flatten(name="flatten")(L.ReLU(name="relu")(x))
    x = L.Dropout(dropout, name="dropout")(x) if dropout else x
    x = L.Dense(outputs or CLASSES, activation, name="fc")(x)
    model = keras.Model(inputs, head(x) if head else x, name="network")
    keras.config.set_dtype_policy(before)
    return randomised(model, seed)


def randomised(model, seed=1):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = rng.normal(size=variable.shape)
        if "seed" not in variable.path:
            variable.assign(np.abs(values) if "variance" in variable.name else values)
    return model


@functools.cache
def _network():
    return network()


@pytest.fixture
def model():
    """The network with its first values; of all else tests leave it as it is."""
    return randomised(_network())


def score(model, method, data=DATA, **options):
    return tf_pruneinit.score(model, method, data, **options)


def vector(scores):
    return np.concatenate([z.ravel() for z in scores.values()])


def relative_error(got, expected):
    assert list(got) == list(expected)
    return np.linalg.norm(vector(got) - vector(expected)) / np.linalg.norm(vector(expected))


def require_same_bits(got, expected):
    assert list(got) == list(expected)
    for path, values in expected.items():
        assert got[path].dtype == values.dtype
        assert got[path].tobytes() == values.tobytes(), path


def require_equal(got, expected, **tolerance):
    assert list(got) == list(expected)
    for path, values in expected.items():
        assert got[path].dtype == values.dtype
        np.testing.assert_allclose(got[path], values, **({"rtol": 0} | tolerance), err_msg=path)


def snapshot(model):
    seeds = [generator.state for layer in model._flatten_layers() for generator in layer._seed_generators]
    variables = [*model.variables, *seeds, *(model.optimizer.variables if model.optimizer else [])]
    return [variable.numpy() for variable in variables]


@pytest.fixture(scope="module")
def fitted():
    """A model with all that scores must leave as it is; tests leave it so."""
    model = network(dropout=0.3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, run_eagerly=True)
    model.fit(IMAGES, LABELS, verbose=0)
    return model


@every_method
class TestEveryMethod:
    @pytest.mark.usefixtures("eagerly")
    def test_scores_are_finite_floats_of_the_kernels_shapes_in_model_order_and_the_callers_own(self, method, model):
        scores = score(model, method)
        assert {path: z.shape for path, z in scores.items()} == KERNELS
        assert list(scores) == list(KERNELS)
        for z in scores.values():
            assert isinstance(z, np.ndarray)
            assert z.dtype == ("float64" if method in ("random", "synflow", "lamp", "phew") else "float32")
            assert np.isfinite(z).all()
            assert len(np.unique(z)) > 3
        kept = {path: z.copy() for path, z in scores.items()}
        for z in scores.values():
            z[...] = -1
        require_same_bits(score(model, method), kept)

    def test_the_model_stays_as_it_is_bit_for_bit(self, method, fitted, request):
        if method not in ("grasp", "synflow"):  # These two are compiled.
            request.getfixturevalue("eagerly")
        before, training = snapshot(fitted), [layer.trainable for layer in fitted.layers]
        score(fitted, method, precision="float64" if method in ("grasp", "random", "force") else "float32")
        for old, new in zip(before, snapshot(fitted), strict=True):
            np.testing.assert_array_equal(old, new)
        assert fitted.compiled
        assert training == [layer.trainable for layer in fitted.layers]

    @pytest.mark.slow
    @pytest.mark.usefixtures("nothing_compiled")
    def test_eager_equals_compiled(self, method, model):
        compiled = score(model, method)
        tf.config.run_functions_eagerly(True)
        try:
            eager = score(model, method)
            compiled_scorer._compiled.clear()
            fresh = score(model, method)
        finally:
            tf.config.run_functions_eagerly(False)
        largest = max(np.abs(z).max() for z in compiled.values())
        for got in (eager, fresh):
            require_equal(got, compiled, rtol=1e-5, atol=1e-6 * largest)
            masks, expected = (selection.global_masks(scores, 0.7) for scores in (got, compiled))
            require_same_bits(masks, expected)

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_a_softmax_at_the_end_is_left_out(self, method, model):
        expected = score(model, method)
        require_equal(score(network("softmax"), method), expected)
        require_equal(score(network(head=L.Activation("softmax")), method), expected)
        require_equal(score(network(head=L.Softmax()), method), expected)
        nested = network(head=keras.Sequential([keras.Input((CLASSES,)), L.Softmax()]))
        require_equal(score(nested, method), expected, rtol=1e-6)

    @pytest.mark.usefixtures("eagerly")
    def test_precision_float64_is_that_of_a_model_in_float64(self, method, model):
        scores = score(model, method, precision="float64")
        assert all(z.dtype == "float64" for z in scores.values())
        if method not in METHODS_WITH_DATA:
            return
        error = relative_error(scores, by_hand(model, method))
        assert error < 1e-10
        assert relative_error(score(model, method), scores) < 1e-4

    @pytest.mark.usefixtures("eagerly")
    def test_a_model_without_kernels_is_refused(self, method):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, L.ReLU()(inputs))
        with pytest.raises(UsageError, match=r"the model must have a dense, .*; got no prunable layer in "):
            score(model, method, (np.ones((2, 3)), [0, 1]))

    @pytest.mark.usefixtures("eagerly")
    def test_removed_weights_score_as_the_zeros_that_they_act_as(self, method, model):
        masked = tf_pruneinit.prune(model, "random", 0.5, seed=5)
        masking.copy_kernels(model, masked)  # As in a run, which keeps what it removes.
        masks = tf_pruneinit.masks(masked)
        for layer in ("conv", "fc"):
            kernel = model.get_layer(layer).kernel
            kernel.assign(kernel * masks[f"{layer}/kernel"])
        scores = score(masked, method)
        if method == "random":
            return
        for path, mask in masks.items():
            assert not scores[path][mask == 0].any()
        # GraSP's H and ProsPr's steps are of what is left, NTK-SAP draws other weights when another number of them is, and to
        # GEM-MINER a weight that is 0 is one whose p does not change.
        if not registry.METHODS[method].second_order and method not in ("prospr", "ntk_sap", "gem_miner"):
            require_equal(scores, score(model, method), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("method", "policy"),
    sorted(
        set(itertools.product(registry.METHODS, ["mixed_float16"]))
        | set(itertools.product(["grasp", "synflow"], ["mixed_bfloat16", "bfloat16", "float64"]))
    ),
)
def test_scores_do_not_depend_on_the_precision_of_the_model(method, model, policy):
    other = network(policy=policy)
    assert other.get_layer("conv").compute_dtype != "float32"
    for mine, its in zip(model.variables, other.variables, strict=True):
        # Values that every one of these types holds.
        mine.assign(tf.cast(tf.cast(mine, "bfloat16"), "float16"))
        its.assign(mine.numpy())
    require_equal(score(other, method), score(model, method))
    require_equal(score(other, method, precision="float64"), score(model, method, precision="float64"))


# What is kept for the next call: of no function at all, a random one, of data, of second derivatives, of float64, of walks.
@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("method", ["magnitude", "random", "snip", "grasp", "synflow", "phew"])
class TestCalls:
    @pytest.mark.slow
    def test_repeated_calls_have_the_same_bits_also_in_a_rebuilt_model(self, method):
        model = network(dropout=0.5)
        first = score(model, method)
        require_same_bits(score(model, method), first)
        require_same_bits(score(network(dropout=0.5), method), first)
        compiled_scorer._compiled.clear()
        require_same_bits(score(model, method), first)

    def test_another_model_of_the_same_architecture_has_its_own_scores(self, method, model):
        other = network(seed=2)
        first = score(model, method)
        of_cached = score(other, method)
        assert len(compiled_scorer._compiled) == 1
        compiled_scorer._compiled.clear()
        require_same_bits(score(other, method), of_cached)
        require_same_bits(score(model, method), first)
        if method != "random":
            assert relative_error(of_cached, first) > 0.1

    def test_batches_of_other_sizes_are_those_of_a_fresh_call(self, method, model):
        if method not in METHODS_WITH_DATA:
            require_same_bits(score(model, method, (IMAGES[:4], LABELS[:4])), score(model, method))
            return
        parts = [(IMAGES[:n], LABELS[:n]) for n in (12, 7)]
        cached = [score(model, method, part) for part in parts]
        for part, got in zip(parts, cached, strict=True):
            compiled_scorer._compiled.clear()
            fresh = score(model, method, part)
            require_same_bits(got, fresh)

    @pytest.mark.slow
    def test_threads_do_not_disturb_one_another(self, method):
        models = [network(seed=seed) for seed in range(2)]
        expected = [score(model, method) for model in models]
        got: list = [None] * 3
        start = threading.Barrier(3)

        def work(i):
            start.wait()
            for _ in range(2):
                got[i] = score(models[i % 2], method)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(3):
            require_same_bits(got[i], expected[i % 2])

    def test_an_error_leaves_later_scores_alone(self, method, model):
        expected = score(model, method)
        with pytest.raises(UsageError):
            score(network(), method, (IMAGES * np.nan, LABELS) if method in METHODS_WITH_DATA else DATA, temperature=-1)
        if method in METHODS_WITH_DATA:
            with pytest.raises(UsageError, match="scores must be finite"):
                score(model, method, (IMAGES * np.nan, LABELS))
        require_same_bits(score(model, method), expected)


def by_hand(model, method, data=DATA, temperature=200.0):
    """Scores with data of `network` in float64 from a few lines of TensorFlow."""
    first_order = not registry.METHODS[method].second_order
    weights = {variable.path: tf.cast(variable.value, tf.float64) for variable in model.variables}
    kernels = [weights[path] for path in KERNELS]
    images, labels = tf.cast(data[0], tf.float64), data[1]

    def loss(conv, fc):
        x = tf.nn.conv2d(images, conv, 1, "VALID") + weights["conv/bias"]
        if "bn/gamma" in weights:
            mean = tf.reduce_mean(x, [0, 1, 2])
            variance = tf.reduce_mean((x - mean) ** 2, [0, 1, 2])
            x = (x - mean) / tf.sqrt(variance + 1e-3) * weights["bn/gamma"] + weights["bn/beta"]
        logits = tf.reshape(tf.nn.relu(x), (len(labels), -1)) @ fc + weights["fc/bias"]
        scaled = logits if first_order else logits / temperature
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scaled))

    initial = kernels
    for _ in range(3 if method == "prospr" else 0):
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            value = loss(*kernels)
        kernels = [w - 0.1 * g for w, g in zip(kernels, tape.gradient(value, kernels), strict=True)]
    before = list(score(model, "random").values())
    if method == "gem_miner":
        kernels = [w * (p > 0.5) for w, p in zip(kernels, before, strict=True)]
    with tf.GradientTape() as outer:
        outer.watch(kernels)
        with tf.GradientTape() as inner:
            inner.watch(kernels)
            value = loss(*kernels)
        gradients = inner.gradient(value, kernels)
        product = tf.add_n([tf.reduce_sum(tf.stop_gradient(g) * g) for g in gradients])
    factors = gradients if first_order else outer.gradient(product, kernels)
    scores = [(w * f).numpy() for w, f in zip(initial, factors, strict=True)]
    if method == "gem_miner":
        return {path: np.clip(p - z, 0, 1) for path, p, z in zip(KERNELS, before, scores, strict=True)}
    return dict(zip(KERNELS, scores if method == "grasp" else map(np.abs, scores), strict=True))


@pytest.fixture
def batches():
    return [(IMAGES[:4], LABELS[:4]), (IMAGES[4:8], LABELS[4:8]), (IMAGES[8:], LABELS[8:])]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("method", ["snip", "grasp", "prospr"])  # The others have the same functions of a batch.
class TestMethodsWithData:
    @pytest.mark.slow
    def test_several_batches_average_the_scores(self, method, model, batches):
        each = [score(model, method, batch, precision="float64") for batch in batches]
        expected = {path: np.mean([scores[path] for scores in each], axis=0) for path in KERNELS}
        got = score(model, method, batches, precision="float64")
        assert relative_error(got, expected) < 1e-13
        whole = score(model, method, DATA, precision="float64")
        assert relative_error(got, whole) > 1e-2

    @pytest.mark.slow
    def test_accumulated_gradients_are_those_of_one_large_batch_without_batch_normalisation(self, method):
        model = network(normalised=False)
        whole = score(model, method, precision="float64", temperature=1.0)
        for parts in ([4, 8], [1, 2]):
            edges = [0, *parts, 12]
            batches = [(IMAGES[a:b], LABELS[a:b]) for a, b in itertools.pairwise(edges)]
            options = {"precision": "float64", "temperature": 1.0}
            got = score(model, method, batches, accumulate="gradients", **options)
            assert relative_error(got, whole) < 1e-10
            assert relative_error(score(model, method, iter(batches), accumulate="gradients", **options), whole) < 1e-10
            # The mean of products is not the product of means.
            assert relative_error(score(model, method, batches, **options), whole) > 1e-2
        split = score(model, method, batch_size=5, accumulate="gradients", precision="float64", temperature=1.0)
        assert relative_error(split, whole) < 1e-10

    @pytest.mark.slow
    def test_accumulated_gradients_of_one_batch_are_its_own(self, method, model):
        require_same_bits(score(model, method, accumulate="gradients"), score(model, method))
        assert relative_error(score(model, method, [DATA], accumulate="gradients"), score(model, method)) < 1e-5

    @pytest.mark.slow
    def test_accumulated_gradients_take_the_statistics_of_each_batch(self, method, model, batches):
        whole = score(model, method, precision="float64")
        got = score(model, method, batches, accumulate="gradients", precision="float64")
        assert relative_error(got, whole) > 1e-2

    @pytest.mark.slow
    @pytest.mark.parametrize("accumulate", ["scores", "gradients"])
    def test_chunks_for_lack_of_memory_change_nothing_without_batch_normalisation(self, method, accumulate, monkeypatch):
        model = network(normalised=False, dropout=None)
        expected = score(model, method, precision="float64", accumulate=accumulate)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            for size in (1, 10_000):
                monkeypatch.setattr(scoring, "_CHUNK_BYTES", size)
                got = score(model, method, precision="float64", accumulate=accumulate)
                assert relative_error(got, expected) < 1e-10

    @pytest.mark.slow
    def test_chunks_of_several_batches_change_nothing_without_batch_normalisation(self, method, batches, monkeypatch):
        model = network(normalised=False)
        for accumulate in ("scores", "gradients"):
            options = {"precision": "float64", "accumulate": accumulate}
            expected = score(model, method, batches, **options)
            with monkeypatch.context() as patch:
                patch.setattr(scoring, "_CHUNK_BYTES", 20_000)
                assert relative_error(score(model, method, batches, **options), expected) < 1e-10

    @pytest.mark.parametrize("accumulate", ["scores", "gradients"])
    def test_chunks_with_batch_normalisation_are_a_warning(self, method, accumulate, model, monkeypatch):
        monkeypatch.setattr(scoring, "_CHUNK_BYTES", 10_000)
        with pytest.warns(UserWarning, match=r"memory does not hold a batch of 12: computed in chunks of \d+") as caught:
            scores = score(model, method, accumulate=accumulate)
        assert len(caught) == 1
        assert all(np.isfinite(z).all() for z in scores.values())

    def test_dropout_has_the_seed_of_the_call(self, method):
        model = network(dropout=0.5)
        first = score(model, method, seed=0)
        require_same_bits(score(model, method, seed=0), first)
        assert relative_error(score(model, method, seed=1), first) > 1e-2
        assert relative_error(first, score(network(), method)) > 1e-2


@pytest.mark.usefixtures("eagerly")
class TestData:
    @pytest.mark.parametrize("kind", ["dataset", "generator", "tuple", "tensors", "iterator"])
    @pytest.mark.parametrize(("method", "accumulate"), [("snip", "scores"), ("grasp", "gradients")])
    def test_batches_come_in_any_iterable(self, method, model, batches, kind, accumulate):
        data = {
            "dataset": tf.data.Dataset.from_tensor_slices(DATA).batch(4),
            "generator": (batch for batch in batches),
            "tuple": tuple(batches),
            "tensors": [tuple(map(tf.constant, batch)) for batch in batches],
            "iterator": iter(tf.data.Dataset.from_tensor_slices(DATA).batch(4)),
        }[kind]
        expected = score(model, method, batches, accumulate=accumulate)
        require_same_bits(score(model, method, data, accumulate=accumulate), expected)

    def test_two_batches_in_a_tuple_are_not_images_and_labels(self, model, batches):
        pair = batches[:2]
        require_equal(score(model, "snip", tuple(pair)), score(model, "snip", iter(pair)))

    @pytest.mark.parametrize(("method", "batch_size"), [*itertools.product(["snip"], [4, 8, 5, 1, 12, 100]), ("grasp", 5)])
    def test_batch_size_splits_into_balanced_batches_and_averages(self, method, model, batch_size):
        places = tf_pruneinit.datasets.sampling.balanced_batches(LABELS, batch_size)
        assert all(len(part) <= batch_size for part in places)
        each = [(IMAGES[part], LABELS[part]) for part in places]
        got = score(model, method, batch_size=batch_size)
        require_same_bits(got, score(model, method, each))
        if batch_size >= 12:
            require_same_bits(got, score(model, method))

    @pytest.mark.parametrize("kind", ["list", "float64", "one-hot", "one-hot integers", "one-hot tensor", "bytes"])
    def test_labels_and_images_of_other_types_count_as_numbers(self, model, kind):
        data = {
            "list": (IMAGES, LABELS.tolist()),
            "float64": (IMAGES.astype("float64"), LABELS.astype("int64")),
            "one-hot": (IMAGES, np.eye(CLASSES)[LABELS]),
            "one-hot integers": (IMAGES, np.eye(CLASSES, dtype=int)[LABELS]),
            "one-hot tensor": (tf.constant(IMAGES), tf.one_hot(LABELS, CLASSES)),
            "bytes": (IMAGES, LABELS.astype("uint8")),
        }[kind]
        require_same_bits(score(model, "snip", data), score(model, "snip"))

    @pytest.mark.parametrize("method", ["snip", "grasp"])
    def test_excluded_layers_are_constants(self, method, model):
        scores = score(model, method, exclude=["conv"])
        assert list(scores) == ["fc/kernel"]
        if method == "snip":  # Of GraSP's H they are no part.
            assert relative_error(scores, {"fc/kernel": score(model, method)["fc/kernel"]}) < 1e-6

    @pytest.mark.parametrize("method", ["snip", "grasp"])
    def test_moments_and_weights_of_training_do_not_leak_in(self, method, model):
        """Batch statistics count, not moving ones."""
        first = score(model, method)
        model.get_layer("bn").moving_mean.assign([5.0, 6.0, 7.0])
        require_same_bits(score(model, method), first)

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["snip", "grasp"])
    def test_integer_inputs_are_accepted(self, method):
        model = transformer()
        words = np.random.default_rng(0).integers(0, 11, (8, 5))
        scores = score(model, method, (words, np.arange(8) % 3))
        assert all(np.isfinite(z).all() and z.any() for z in scores.values())
        require_same_bits(score(model, method, (words.astype("uint8"), np.arange(8) % 3)), scores)


def transformer():
    inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(11, 6, name="words")(inputs)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3, name="attention")(x, x))
    x = L.LayerNormalization()(x + L.Dense(6, name="down")(L.Dense(8, "gelu", name="up")(x)))
    return randomised(keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x))))


@pytest.mark.usefixtures("eagerly")
class TestTheLastLayer:
    """A softmax is left out where the outputs come out of it, and only there."""

    def gate(self, softmax):
        inputs = keras.Input((5,))
        gate = L.Dense(4, name="gate")(inputs)
        gate = softmax(gate)
        return randomised(keras.Model(inputs, gate * L.Dense(4, name="fc")(inputs)))

    @pytest.mark.parametrize("method", ["snip", "grasp"])
    def test_a_softmax_that_gates_is_no_last_layer(self, method):
        """Both are the same network; in one of them the gate's softmax is an operation and cannot be mistaken."""
        data = np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.arange(8) % 4
        expected = score(
            self.gate(lambda x: keras.ops.exp(x) / keras.ops.sum(keras.ops.exp(x), -1, keepdims=True)), method, data
        )
        assert relative_error(score(self.gate(L.Softmax()), method, data), expected) < 1e-4

    def test_a_softmax_within_the_last_kernel_layer_that_gates_stays(self):
        inputs = keras.Input((5,))
        data = np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.arange(8) % 4
        models = []
        for activation, after in (("softmax", lambda x: x), (None, L.Softmax(name="after"))):
            x = L.Dense(4, name="fc")(inputs)
            gate = after(L.Dense(4, activation, name="gate")(inputs))
            models.append(randomised(keras.Model(inputs, keras.ops.multiply(x, gate))))
        for name in ("fc", "gate"):  # The order of the layers differs.
            models[1].get_layer(name).set_weights(models[0].get_layer(name).get_weights())
        within, after = (score(model, "snip", data) for model in models)
        assert relative_error({path: within[path] for path in after}, after) < 1e-5

    @pytest.mark.parametrize("softmax", [keras.ops.softmax, keras.activations.softmax])
    def test_a_softmax_operation_at_the_end_is_left_out(self, softmax):
        require_equal(score(network(head=softmax), "snip"), score(network(), "snip"), rtol=1e-5)

    def test_a_shared_softmax_layer_at_the_end_is_not_left_out_of_the_middle(self):
        inputs = keras.Input((5,))
        data = np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.arange(8) % 4

        def build(first, last):
            x = first(L.Dense(6, name="one")(inputs))
            return randomised(keras.Model(inputs, last(L.Dense(4, name="two")(x))))

        shared = L.Softmax()
        expected = score(build(L.Softmax(), L.Softmax()), "snip", data)
        assert relative_error(score(build(shared, shared), "snip", data), expected) < 1e-5

    def test_the_last_layer_of_the_layers_listed_may_not_give_the_outputs(self):
        """A nested model whose inner order differs: the softmax inside comes before a dense layer."""
        inner_inputs = keras.Input((5,))
        inner = keras.Model(inner_inputs, L.Dense(4, name="two")(L.Softmax()(L.Dense(6, name="one")(inner_inputs))))
        inputs = keras.Input((5,))
        nested = randomised(keras.Model(inputs, inner(inputs)))
        flat = randomised(keras.Model(inner.inputs, inner.outputs[0]))
        data = np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.arange(8) % 4
        got, expected = score(nested, "snip", data), score(flat, "snip", data)
        assert np.allclose(vector(got), vector(expected), rtol=1e-5)


class TestModels:
    """Forms that a model can have."""

    def dense(self, inputs):
        return L.Dense(3, name="two")(L.ReLU()(L.Dense(6, name="one")(inputs)))

    @property
    def data(self):
        return np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.arange(8) % 3

    def build(self, form):
        inputs = keras.Input((5,), name="inputs")
        if form == "plain":
            return keras.Model(inputs, self.dense(inputs))
        if form == "in lists":
            return keras.Model([inputs], [self.dense(inputs)])
        if form == "in dicts":
            return keras.Model({"inputs": inputs}, {"outputs": self.dense(inputs)})
        if form == "dict of inputs":
            return keras.Model({"inputs": inputs}, self.dense(inputs))
        if form == "one batch size":
            fixed = keras.Input(batch_shape=(8, 5))
            return keras.Model(fixed, self.dense(fixed))
        if form == "built when called":
            model = keras.Sequential([L.Dense(6, "relu", name="one"), L.Dense(3, name="two")])
            model(np.ones((2, 5)))
            return model
        raise AssertionError(form)

    FORMS = ("in lists", "in dicts", "dict of inputs", "one batch size", "built when called")

    @pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "magnitude"])
    @pytest.mark.parametrize("form", FORMS)
    def test_scores_are_those_of_the_plain_form(self, form, method, request):
        if method != "snip":  # That is compiled.
            request.getfixturevalue("eagerly")
        expected = score(randomised(self.build("plain")), method, self.data)
        got = score(randomised(self.build(form)), method, self.data)
        assert len(got) == len(expected)
        np.testing.assert_allclose(vector(got), vector(expected), rtol=1e-5, atol=1e-7)

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["snip", "grasp"])
    def test_images_of_any_size(self, method):
        inputs = keras.Input((None, None, 1))
        x = L.GlobalAveragePooling2D()(L.ReLU()(L.Conv2D(3, 3, name="conv")(inputs)))
        model = randomised(keras.Model(inputs, L.Dense(CLASSES, name="fc")(x)))
        assert all(np.isfinite(z).all() for z in score(model, method).values())
        with pytest.raises(UsageError, match="synflow needs a model with floating-point inputs of a fixed shape"):
            score(model, "synflow")

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float64"])
    @pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
    def test_layers_in_layers_have_the_precision_of_the_call(self, method, policy):
        inputs = keras.Input((4, 5))
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        x = L.TimeDistributed(L.Dense(3, "tanh", name="inner"), name="times")(inputs)
        model = keras.Model(inputs, L.Dense(3, name="fc")(L.Flatten()(x)))
        keras.config.set_dtype_policy(before)
        same = L.Dense(3, "tanh", name="inner")(inputs)
        plain = keras.Model(inputs, L.Dense(3, name="fc")(L.Flatten()(same)))
        data = np.random.default_rng(0).normal(size=(8, 4, 5)).astype("float32"), np.arange(8) % 3
        for mine, its in zip(randomised(plain).weights, model.weights, strict=True):
            its.assign(mine)
        for precision, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
            expected = vector(score(plain, method, data, precision=precision, temperature=1.0))
            np.testing.assert_allclose(
                vector(score(model, method, data, precision=precision, temperature=1.0)),
                expected,
                rtol=tolerance,
                atol=tolerance,
            )

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
    def test_freezing_a_layer_changes_no_score(self, method):
        expected = score(network(normalised=False), method)
        model = network(normalised=False)
        model.get_layer("conv").trainable = False
        require_same_bits(score(model, method), expected)
        model.trainable = False
        require_same_bits(score(model, method), expected)

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
    def test_two_networks_of_one_architecture_but_an_option_are_not_mistaken(self, method):
        scores = []
        for negative_slope in (0.0, 0.5):
            inputs = keras.Input((5,), name="inputs")
            x = L.LeakyReLU(negative_slope, name="relu")(L.Dense(6, name="one")(inputs))
            scores.append(score(randomised(keras.Model(inputs, L.Dense(3, name="two")(x), name="net")), method, self.data))
        if method != "synflow":  # All that flows is positive.
            assert relative_error(*scores) > 1e-2

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["snip", "grasp"])
    @pytest.mark.filterwarnings("ignore:grasp")
    def test_two_activations_of_one_name_are_not_mistaken(self, method):
        scores = []
        for function in (lambda x: 2 * x, lambda x: keras.ops.square(x)):
            function.__name__ = "mine"
            inputs = keras.Input((5,), name="inputs")
            with keras.saving.custom_object_scope({"mine": function}):
                x = L.Activation(function, name="activation")(L.Dense(6, name="one")(inputs))
                model = randomised(keras.Model(inputs, L.Dense(3, name="two")(x), name="net"))
                scores.append(score(model, method, self.data))
                compiled_scorer._compiled.clear() if len(scores) == 2 else None
                again = score(model, method, self.data)
        require_same_bits(scores[1], again)
        assert relative_error(*scores) > 1e-2

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["snip", "grasp"])
    @pytest.mark.filterwarnings("ignore:grasp")
    @pytest.mark.parametrize("activation", [tf.nn.relu, lambda x: keras.ops.maximum(x, 0)], ids=["tf.nn.relu", "lambda"])
    def test_an_activation_given_as_a_function(self, method, activation):
        inputs = keras.Input((5,))
        scores = []
        for function in (activation, "relu"):
            x = L.Dense(6, function, name="one")(inputs)
            scores.append(score(randomised(keras.Model(inputs, L.Dense(3, name="two")(x))), method, self.data))
        assert relative_error(*scores) < 1e-5

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["snip", "grasp"])
    @pytest.mark.filterwarnings("ignore:grasp")
    def test_lambdas_are_not_mistaken(self, method):
        scores = []
        for factor in (1.0, 3.0):
            inputs = keras.Input((5,), name="inputs")
            x = L.Lambda(lambda x, factor=factor: factor * x, name="factor")(L.Dense(6, name="one")(inputs))
            x = L.Dense(3, name="two")(L.Activation("tanh", name="tanh")(x))
            scores.append(score(randomised(keras.Model(inputs, x, name="net")), method, self.data))
        assert relative_error(*scores) > 1e-2

    @pytest.mark.parametrize("method", ["snip", "synflow", "magnitude"])
    def test_a_frozen_batch_normalisation_infers_and_is_not_mistaken_for_another(self, method):
        model = network()
        before = score(model, method)
        model.get_layer("bn").trainable = False
        frozen = score(model, method)
        compiled_scorer._compiled.clear()
        require_same_bits(score(model, method), frozen)
        if method == "snip":
            assert relative_error(frozen, before) > 1e-3
        else:
            require_same_bits(frozen, before)


class TestProcesses:
    CODE = """
import sys, keras, numpy as np, tf_pruneinit
rng = np.random.default_rng(0)
inputs = keras.Input((8, 8, 3))
x = inputs
for i in range(1):
    x = keras.layers.Conv2D(8, 3, padding="same", name=f"conv{i}", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
x = keras.layers.Dropout(0.2, name="dropout")(keras.layers.GlobalAveragePooling2D()(x))
model = keras.Model(inputs, keras.layers.Dense(4, name="fc")(x))
for weight in model.weights:
    weight.assign(rng.uniform(0.1, 1, weight.shape) * rng.choice([-1, 1] if len(weight.shape) > 1 else [1], weight.shape))
data = rng.normal(size=(32, 8, 8, 3)).astype("float32"), np.arange(32) % 4
out = {}
for method in ("random", "grasp", "synflow"):
    scores = tf_pruneinit.score(model, method, data)
    pruned = tf_pruneinit.prune(model, method, 0.8, scores=scores, iterations=1)
    out |= {f"{method}/{path}": mask for path, mask in tf_pruneinit.masks(pruned).items()}
    out |= {f"{method}/{path}/z": z for path, z in scores.items()}
np.savez(sys.argv[1], **out)
"""

    @pytest.mark.slow
    def test_two_processes_find_the_same_masks_and_scores_bit_for_bit(self, tmp_path, monkeypatch):
        # A process of its own, whose sets have another order; and this one, which has scored other models.
        processes.run(["-c", self.CODE, "1.npz"], cwd=tmp_path, check=True, capture_output=True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["-c", "2.npz"])
        exec(self.CODE, {})
        found = []
        for name in ("1.npz", "2.npz"):
            with np.load(tmp_path / name) as file:
                found.append(dict(file))
        require_same_bits(*found)


@pytest.mark.usefixtures("eagerly")
class TestProperties:
    @settings(max_examples=2)
    @given(seed=st.integers(0, 1000))
    @pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
    def test_permuted_channels_permute_the_masks(self, method, seed):
        rng = np.random.default_rng(seed)
        model, other = network(seed=seed), network(seed=seed)
        order = rng.permutation(3)
        for path in ("conv/kernel", "conv/bias", "bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance"):
            layer, name = path.split("/")
            variable = getattr(other.get_layer(layer), name)
            variable.assign(variable.numpy()[..., order])
        kernel = other.get_layer("fc").kernel
        kernel.assign(kernel.numpy().reshape(4, 4, 3, CLASSES)[:, :, order].reshape(kernel.shape))
        first, second = (selection.global_masks(score(m, method, precision="float64"), 0.7) for m in (model, other))
        np.testing.assert_array_equal(first["conv/kernel"][..., order], second["conv/kernel"])
        by_channel = first["fc/kernel"].reshape(4, 4, 3, CLASSES)
        np.testing.assert_array_equal(by_channel[:, :, order].reshape(48, CLASSES), second["fc/kernel"])

    @settings(max_examples=2)
    @given(seed=st.integers(0, 1000))
    @pytest.mark.parametrize("method", ["snip", "grasp"])
    def test_the_order_of_examples_and_the_names_of_classes_do_not_matter(self, method, seed):
        rng = np.random.default_rng(seed)
        model, renamed = network(seed=seed), network(seed=seed)
        places, classes = rng.permutation(12), rng.permutation(CLASSES)
        fc = renamed.get_layer("fc")
        fc.kernel.assign(fc.kernel.numpy()[:, np.argsort(classes)])
        fc.bias.assign(fc.bias.numpy()[np.argsort(classes)])
        first = score(model, method, precision="float64")
        second = score(renamed, method, (IMAGES[places], classes[LABELS[places]]), precision="float64")
        np.testing.assert_allclose(second["conv/kernel"], first["conv/kernel"], rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(second["fc/kernel"][:, classes], first["fc/kernel"], rtol=1e-9, atol=1e-14)

    @pytest.mark.slow
    def test_layers_side_by_side_in_another_order_have_masks_in_that_order(self):
        def build(names):
            inputs = keras.Input((5,))
            parts = {name: L.Dense(4, "tanh", name=name)(inputs) for name in names}
            model = keras.Model(inputs, L.Dense(3, name="fc")(L.Add()([parts[name] for name in names])))
            for layer in model.layers:
                rng = np.random.default_rng(sum(map(ord, layer.name)))
                for weight in layer.weights:
                    weight.assign(rng.normal(size=weight.shape))
            return model

        data = np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.arange(8) % 3
        for method in ("snip", "grasp", "synflow", "ntk_sap", "magnitude", "random"):
            masks = []
            for names in (("a", "b"), ("b", "a")):
                scores = score(build(names), method, data, precision="float64")
                assert list(scores) == [*(f"{name}/kernel" for name in names), "fc/kernel"]
                masks.append(selection.global_masks(scores, 0.6))
            for path, mask in masks[0].items():
                np.testing.assert_array_equal(mask, masks[1][path])

    @pytest.mark.parametrize("factor", [1e-3, 17.0])
    def test_a_scaled_loss_leaves_the_mask_of_snip(self, factor):
        model = network()
        before = score(model, "snip", precision="float64")
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        after = score(model, "snip", precision="float64", loss=cross_entropy, loss_weights=factor)
        require_same_bits(selection.global_masks(after, 0.8), selection.global_masks(before, 0.8))
        assert relative_error(after, {path: factor * z for path, z in before.items()}) < 1e-12

    @settings(max_examples=2)
    @given(sizes=st.lists(st.integers(2, 7), min_size=2, max_size=5), seed=st.integers(0, 1000))
    def test_synflow_has_the_same_sum_in_every_layer_without_biases(self, sizes, seed):
        x = inputs = keras.Input((6,))
        for size in sizes:
            x = L.ReLU()(L.Dense(size, use_bias=False)(x))
        model = randomised(keras.Model(inputs, L.Dense(3, use_bias=False)(x)), seed)
        sums = [z.sum() for z in score(model, "synflow").values()]
        assert len(sums) == len(sizes) + 1
        np.testing.assert_allclose(sums, sums[0], rtol=1e-12)

    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_grasp_sums_to_the_change_of_half_the_squared_gradient_along_the_weights(self, seed, temperature):
        """sum(w * Hg) is the derivative of |g(aw)|^2 / 2 by a, at 1."""
        inputs = keras.Input((5,))
        x = L.Dense(6, "tanh", name="one")(inputs)
        model = randomised(keras.Model(inputs, L.Dense(3, name="two")(x)), seed)
        images, labels = np.random.default_rng(seed).normal(size=(8, 5)), np.arange(8) % 3
        weights = [tf.cast(weight.value, tf.float64) for weight in model.weights]

        def half_squared_gradient(a):
            kernels = [a * weights[0], a * weights[2]]
            with tf.GradientTape() as tape:
                tape.watch(kernels)
                logits = tf.tanh(images @ kernels[0] + weights[1]) @ kernels[1] + weights[3]
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits / temperature))
            return sum(float(tf.reduce_sum(g * g)) for g in tape.gradient(loss, kernels)) / 2

        expected = (half_squared_gradient(1 + 1e-5) - half_squared_gradient(1 - 1e-5)) / 2e-5
        scores = score(model, "grasp", (images, labels), temperature=temperature, precision="float64")
        assert vector(scores).sum() == pytest.approx(expected, rel=1e-7)


@pytest.mark.usefixtures("eagerly")
class TestSequentialModels:
    """Those have a precision of their own, to which Keras casts their inputs."""

    @pytest.fixture
    def half_precision(self):
        """The global policy of a user who trains in mixed precision."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        yield
        keras.config.set_dtype_policy(before)

    def build(self):
        head = keras.Sequential([keras.Input((48,)), L.Dense(CLASSES, name="fc")], name="head")
        convolution = L.Conv2D(3, 3, name="conv")
        return randomised(keras.Sequential([keras.Input((6, 6, 1)), convolution, L.Flatten(), head], name="sequential"), 2)

    def test_scores_do_not_depend_on_the_global_precision(self, half_precision):
        got = score(self.build(), "snip")
        assert keras.config.dtype_policy().name == "mixed_float16"
        keras.config.set_dtype_policy("float32")
        require_equal(got, score(self.build(), "snip"))

    def test_synflow_is_in_float64_throughout(self):
        model = self.build()
        for weight in model.trainable_weights:
            weight.assign(np.full(weight.shape, 1e38))
        scores = tf_pruneinit.score(model, "synflow")
        assert all(np.isfinite(z).all() and z.min() > 1e76 for z in scores.values())


def by_default(names=0):
    """A model whose layers and operations have the names that Keras gives, after so many others have been made."""
    for _ in range(names):
        keras.Sequential([keras.Input((2,)), L.Dense(2), L.LayerNormalization()])
    inputs = keras.Input((5,))
    shared = keras.Sequential([keras.Input((5,)), L.Dense(5, "tanh"), L.LayerNormalization()])
    x = shared(inputs)
    x = L.Dropout(0.3, name="dropout")(keras.ops.tanh(shared(x) + x))
    x = L.Dense(6)(x)
    return randomised(keras.Model(inputs, L.Dense(3)(keras.ops.concatenate([x, x], axis=-1))))


def wired(function):
    def build():
        inputs = keras.Input((4,))
        return randomised(keras.Model(inputs, L.Dense(3)(function(inputs))))

    return build


def one_after_another(shared):
    def function(x):
        first = L.Dense(4, "tanh", name="one")
        second = first if shared else L.Dense(4, "tanh", name="one")
        inputs = keras.Input((4,))
        x = keras.Model(inputs, first(inputs), name="first")(x)
        inputs = keras.Input((4,))
        return keras.Model(inputs, second(inputs), name="second")(x)

    return function


def difference(turned):
    def function(x):
        a = L.Dense(4, "tanh")(x)
        b = L.Dense(4, "tanh")(a)
        return L.Subtract()([b, a] if turned else [a, b])

    return function


# Pairs of models that have the same layers, or operations, and are others.
OTHERS = {
    "shared layer": (wired(one_after_another(True)), wired(one_after_another(False))),
    "order of inputs": (wired(difference(True)), wired(difference(False))),
    "operation": (wired(lambda x: keras.ops.tanh(x)), wired(lambda x: keras.ops.sin(x))),
    "argument": (wired(lambda x: keras.ops.roll(x, 1, axis=-1)), wired(lambda x: keras.ops.roll(x, 2, axis=-1))),
}


def test_options_are_those_of_the_signature_in_its_order():
    parameters = inspect.signature(tf_pruneinit.score).parameters.values()
    options = [(one.name, one.default) for one in parameters if one.kind is one.KEYWORD_ONLY]
    assert options == [(field.name, field.default) for field in dataclasses.fields(scoring.ScoringOptions)]


@pytest.mark.usefixtures("eagerly")
class TestGpus:
    """What the class cannot check without one: that no tensor which is computed with eagerly shares memory that changes."""

    @pytest.fixture
    def scorer(self):
        model = network()
        kernels = masking.prunable(model)
        scorer = compiled_scorer.CompiledScorer(model, kernels, registry.METHODS["snip"], "float32", {})
        scorer.load(model, kernels, 0)
        return scorer

    def test_what_is_computed_eagerly_is_a_copy(self, scorer):
        before = scorer._network().kernels[0].numpy()
        tensors = scorer._network().kernels
        scorer.kernels[0][...] = 7.0
        np.testing.assert_array_equal(tensors[0], before)
        np.testing.assert_array_equal(scorer._network().kernels[0], np.full_like(before, 7.0))

    def test_functions_are_given_copies_where_there_is_a_gpu(self, scorer, monkeypatch):
        assert scorer._arguments() is scorer._tensors
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["GPU:0"])
        tensor = scorer._arguments()[0][0]
        scorer.kernels[0][...] = 7.0
        assert not (tensor.numpy() == 7.0).any()

    def test_scores_are_in_full_float32(self, monkeypatch):
        seen = []

        def mine(network, batch):
            seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
            return list(network.kernels)

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(True)
        try:
            score(network(), mine)
            assert seen == [False]
            assert tf.config.experimental.tensor_float_32_execution_enabled()
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)

    def test_a_first_score_is_not_eager_where_there_is_one(self, monkeypatch):
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["GPU:0"])
        model = network()
        scorer = compiled_scorer.CompiledScorer(model, masking.prunable(model), registry.METHODS["magnitude"], "float32", {})
        assert not scorer._eager_first


def traces(scorer):
    return sum(len(function._list_all_concrete_functions()) for function in scorer._traced)


def resnet():
    return build.build("resnet20", (8, 8, 3), 10, seed=0)


def of_many_layers():
    """Layers of many kinds; the derivatives of two are added up where tensors are read twice."""
    x = inputs = keras.Input((6, 6, 4))
    x = L.Conv2D(8, 3, 2, "same", activation="gelu")(x)
    for layer in (L.DepthwiseConv2D(3, padding="same"), L.BatchNormalization(), L.Conv2D(8, 1), L.LayerNormalization()):
        x = L.Add()([x, layer(x)]) * 0.5
    x = L.MaxPooling2D(2, padding="same")(L.GroupNormalization(2)(x))
    x = L.Concatenate()([L.Dense(8, "softplus")(x), L.SeparableConv2D(4, 3, padding="same")(x)])
    return randomised(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.Dropout(0.3)(x)))))


def residual():
    """Batch normalization, whose derivatives are our own, beside convolutions of the same tensor."""
    x = inputs = keras.Input((6, 6, 4))
    x = L.Conv2D(8, 3, padding="same")(x)
    x = L.Add()([L.BatchNormalization()(x), L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x))])
    x = L.BatchNormalization()(x)
    y = L.Conv2D(8, 1)(x)
    x = L.Add()([L.Add()([L.Conv2D(8, 3, padding="same")(y), y]), L.BatchNormalization()(L.Conv2D(8, 1)(x))])
    x = L.GlobalAveragePooling2D()(L.BatchNormalization()(x))
    return randomised(keras.Model(inputs, L.Dense(3)(x)))


def read_by(count):
    x = inputs = keras.Input((6,))
    x = L.Dense(5, "tanh")(x)
    return randomised(keras.Model(inputs, L.Dense(3)(L.Add()([L.Dense(4)(x) for _ in range(count)]))))


def nested():
    """A tensor that two models read twice each."""
    x = inputs = keras.Input((6,))
    x = L.Dense(5, "tanh")(x)
    parts = []
    for _ in range(2):
        part = keras.Input((5,))
        parts.append(keras.Model(part, L.Add()([L.Dense(5)(part), L.Dense(5, "relu")(part)]))(x))
    return randomised(keras.Model(inputs, L.Dense(3)(L.Add()(parts))))


@pytest.mark.usefixtures("nothing_compiled")
class TestFirstScores:
    """The first score of an architecture is eager, where that has the bits of the compiled ones after it."""

    @staticmethod
    def scores(model, method, **options):
        """Three scores of a model, and how often its scorer had been traced after each."""
        images = np.random.default_rng(0).normal(size=(12, *model.input_shape[1:])).astype("float32")
        found = []
        for _ in range(3):
            z = score(model, method, (images, np.arange(12) % 3), **options)
            (scorer,) = compiled_scorer._compiled.values()
            found.append((z, traces(scorer)))
        return zip(*found, strict=True)

    @pytest.mark.parametrize(
        ("make", "method"),
        [
            (network, "snip"),
            (network, "magnitude"),
            (of_many_layers, "snip"),
            (network, "grasp"),
            pytest.param(residual, "grasp", marks=pytest.mark.slow),
            pytest.param(resnet, "grasp", marks=pytest.mark.slow),
            pytest.param(of_many_layers, "prospr", marks=pytest.mark.slow),
            pytest.param(of_many_layers, "synflow", marks=pytest.mark.slow),
            pytest.param(resnet, "snip", marks=pytest.mark.slow),
        ],
    )
    def test_trace_nothing_and_have_the_bits_of_the_next(self, make, method):
        (first, second, third), counts = self.scores(make(), method)
        assert counts == (0, 1, 1)
        require_same_bits(second, first)
        require_same_bits(third, first)

    @pytest.mark.parametrize(
        ("part", "traced"),
        [(lambda: L.Dense(3, "relu"), 0), (lambda: L.Dense(3, "tanh"), 1), (lambda: L.LayerNormalization(), 1)],
        ids=["relu", "tanh", "LayerNormalization"],
    )
    def test_of_second_derivatives_are_traced_where_no_test_says_that_they_are_the_same(self, part, traced):
        model = keras.Sequential([keras.Input((5,)), L.Dense(4), part(), L.Dense(3)])
        _, counts = self.scores(model, "grasp")
        assert counts == (traced, 1, 1)

    @pytest.mark.parametrize(
        "part",
        [
            lambda: L.LSTM(3, return_sequences=True),
            lambda: L.Bidirectional(L.GRU(2, return_sequences=True)),
            lambda: L.TimeDistributed(L.Dense(3)),
            lambda: L.MaxPooling1D(3, 2),
            lambda: L.Dense(3, "swish"),
            lambda: L.Activation(keras.ops.silu),
        ],
        ids=["LSTM", "Bidirectional", "TimeDistributed", "windows that overlap", "swish", "silu"],
    )
    def test_of_layers_whose_bits_would_differ_are_traced(self, part):
        model = keras.Sequential([keras.Input((5, 4)), part(), L.Flatten(), L.Dense(3)])
        _, counts = self.scores(model, "snip")
        assert counts == (1, 1, 1)

    @pytest.mark.parametrize(
        ("make", "method", "traced"),
        [(lambda: read_by(2), "snip", 0), (lambda: read_by(3), "snip", 1), (nested, "snip", 1)],
        ids=["two readers", "three", "nested"],
    )
    def test_with_sums_of_more_than_two_are_traced(self, make, method, traced):
        _, counts = self.scores(make(), method)
        assert counts == (traced, 1, 1)

    def test_of_large_batches_are_traced(self, monkeypatch):
        activations = compiled_scorer.keras_internals.activations_of(network())
        for most, traced in ((12 * activations, 0), (12 * activations - 1, 1)):
            compiled_scorer._compiled.clear()
            monkeypatch.setattr(compiled_scorer, "_MOST_EAGER", most)
            _, counts = self.scores(network(), "snip")
            assert counts[0] == traced

    def test_with_an_output_that_layers_read_too_are_traced(self):
        x = inputs = keras.Input((6,))
        x = L.Dense(4, "tanh")(x)
        model = randomised(keras.Model(inputs, [x, L.Add()([L.Dense(3)(x), L.Dense(3)(x)])]))
        score(model, "synflow", None)
        (scorer,) = compiled_scorer._compiled.values()
        assert traces(scorer) == 1

    @pytest.mark.parametrize(("loss", "traced"), [("mse", 0), (["mse", "mae"], 1)])
    def test_of_several_losses_of_one_output_are_traced(self, loss, traced):
        model = read_by(2)
        score(model, "snip", (np.ones((6, 6), "float32"), np.ones((6, 3), "float32")), loss=loss)
        (scorer,) = compiled_scorer._compiled.values()
        assert traces(scorer) == traced

    @pytest.mark.parametrize("options", [{"precision": "float64"}, {"batch_norm_warmup": True}])
    def test_of_second_derivatives_are_traced_also_with_other_options(self, options):
        _, counts = self.scores(network(), "grasp", **options)
        assert counts == (1, 1, 1)

    @pytest.mark.parametrize("own", ["layer", "activation", "loss", "method", "regularizer"])
    def test_what_users_wrote_is_only_traced(self, own):
        seen = []

        def mark(value):
            seen.append(tf.executing_eagerly())
            return value

        class Own(L.Layer):
            def call(self, x):
                return mark(x)

        layers = [Own()] if own == "layer" else []

        @keras.saving.register_keras_serializable("tests")
        def sum_of(w):
            return mark(tf.reduce_sum(w))

        regularizer = sum_of if own == "regularizer" else None
        activation = (lambda x: mark(tf.tanh(x))) if own == "activation" else None
        dense = L.Dense(4, activation, kernel_regularizer=regularizer)
        model = keras.Sequential([keras.Input((5,)), *layers, dense, L.Dense(3)])
        method = (lambda network, batch: mark(list(network.kernels))) if own == "method" else "snip"
        loss = (lambda labels, outputs: mark(tf.reduce_sum(outputs, -1))) if own == "loss" else None
        data = np.ones((6, 5), "float32"), np.arange(6) % 3
        seen.clear()
        with keras.saving.custom_object_scope({"Own": Own}):
            score(model, method, data, loss=loss, regularizers=own == "regularizer")
        assert seen
        assert not any(seen)

    def test_leave_the_graph_optimizer_out_and_then_it_is_as_before(self):
        def is_off():
            return tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)

        seen = []

        def mine(network, batch):
            seen.append(is_off())
            return list(network.kernels)

        score(network(), mine)
        assert seen == [True]
        assert not is_off()


@pytest.mark.slow
def test_models_of_many_architectures_are_scored_without_a_warning_of_tensorflow(caplog):
    for units in range(2, 9):
        score(keras.Sequential([keras.Input((5,)), L.Dense(units)]), "magnitude", None)
        tf_pruneinit.clear_cache()
    assert "retracing" not in caplog.text


@pytest.mark.usefixtures("nothing_compiled")
class TestCache:
    DATA = np.random.default_rng(0).normal(size=(9, 5)).astype("float32"), np.arange(9) % 3

    @pytest.fixture
    def made(self, monkeypatch):
        """The scorers that have been compiled."""
        made = []
        compiled = compiled_scorer.CompiledScorer

        def make(*arguments, **options):
            scorer = compiled(*arguments, **options)
            made.append(weakref.ref(scorer))
            return scorer

        monkeypatch.setattr(scoring, "CompiledScorer", make)
        return made

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.filterwarnings("ignore:grasp")
    @pytest.mark.parametrize("method", ["magnitude", "grasp", "synflow", "phew"])
    def test_names_that_keras_gives_do_not_matter(self, made, method):
        if method == "phew":  # It does not pass the operations.
            models = [randomised(keras.Sequential([keras.Input((5,)), L.Dense(4), L.ReLU(), L.Dense(3)])) for _ in range(2)]
        else:
            models = [by_default(), by_default(names=1)]
        assert [layer.name for layer in models[0].layers] != [layer.name for layer in models[1].layers]
        first, second = (score(model, method, self.DATA) for model in models)
        assert len(made) == 1
        assert list(second) == list(masking.prunable(models[1])) != list(first)
        compiled_scorer._compiled.clear()
        require_same_bits(score(models[1], method, self.DATA), second)

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("method", ["random", "grasp", "synflow", "phew"])
    def test_scores_from_the_cache_are_those_of_a_fresh_call_whatever_the_names(self, method):
        def build(prefix):
            layers = [L.Dense(4, name=f"{prefix}1"), L.ReLU(), L.Dropout(0.4, name=f"{prefix}2"), L.Dense(3, name=f"{prefix}3")]
            return randomised(keras.Sequential([keras.Input((5,)), *layers], name=prefix))

        score(build("a"), method, self.DATA)
        cached = score(build("b"), method, self.DATA)
        compiled_scorer._compiled.clear()
        require_same_bits(score(build("b"), method, self.DATA), cached)

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("kind", OTHERS)
    def test_models_of_the_same_layers_that_are_wired_otherwise_are_not_mistaken(self, made, kind):
        data = self.DATA[0][:, :4], self.DATA[1]
        first, second = (build() for build in OTHERS[kind])
        score(first, "snip", data)
        cached = score(second, "snip", data)
        assert len(made) == 2
        compiled_scorer._compiled.clear()
        require_same_bits(score(second, "snip", data), cached)

    def test_other_excluded_layers_are_not_mistaken(self, made):
        model = network()
        assert list(score(model, "snip", exclude=("conv",))) == ["fc/kernel"]
        assert list(score(model, "snip", exclude=("fc",))) == ["conv/kernel"]
        assert len(made) == 2

    def test_a_users_layer_may_go_by_its_name(self):
        class Scale(L.Layer):
            def call(self, x):
                return x * (2.0 if self.name == "twice" else 1.0)

        def build(name):
            return randomised(keras.Sequential([keras.Input((5,)), Scale(name=name), L.Dense(4, "tanh"), L.Dense(3)]))

        with keras.saving.custom_object_scope({"Scale": Scale}):
            once, twice = (vector(score(build(name), "snip", self.DATA)) for name in ("once", "twice"))
        assert not np.allclose(once, twice)

    def test_warnings_name_the_layers_of_the_model_at_hand(self, made):
        for name in ("a", "b"):
            x = inputs = keras.Input((4, 4, 2))
            x = L.Flatten()(L.UpSampling2D(interpolation="bilinear", name=name)(x))
            model = randomised(keras.Model(inputs, L.Dense(3)(x)))
            with pytest.warns(UserWarning, match=rf"second derivatives of {name} \(UpSampling2D\)$"):
                score(model, "grasp", (np.ones((3, 4, 4, 2), "float32"), np.arange(3)))
        assert len(made) == 1

    def test_errors_name_the_layers_of_the_model_at_hand(self, made):
        def build(name):
            return randomised(keras.Sequential([keras.Input((5,)), L.Dense(4, name=name), L.Dense(3)]))

        score(build("a"), "snip", self.DATA)
        model = build("b")
        model.layers[0].kernel.assign(model.layers[0].kernel * np.nan)
        with pytest.raises(UsageError, match="/b/kernel are not"):
            score(model, "snip", self.DATA)
        assert len(made) == 1

    @pytest.mark.slow
    def test_holds_no_more_bytes_than_it_may_and_drops_the_oldest(self, monkeypatch):
        models, sizes = [network(outputs=4 + n) for n in range(4)], []
        for model in models:
            score(model, "magnitude")
            sizes.append(list(compiled_scorer._compiled.values())[-1].size)
        compiled_scorer._compiled.clear()
        monkeypatch.setattr(compiled_scorer, "_MOST_BYTES", sum(sizes[1:]))
        for model in models:
            score(model, "magnitude")
        assert [entry.size for entry in compiled_scorer._compiled.values()] == sizes[1:]

    def test_counts_kernels_their_masks_other_variables_and_what_is_traced(self):
        model = network()
        score(model, "magnitude")
        kernels = sum(math.prod(shape) for shape in KERNELS.values())
        rest = sum(math.prod(variable.shape) for variable in model.variables) - kernels
        (entry,) = compiled_scorer._compiled.values()
        assert 5 * kernels + 4 * rest == entry.size
        eager = entry.size
        score(model, "magnitude")
        traced = entry.size
        assert eager < traced
        score(model, "magnitude")
        assert entry.size == traced

    @pytest.mark.parametrize("why", ["too large", "a layer of any function", "dropped", "cleared"])
    def test_what_is_not_cached_is_freed(self, made, monkeypatch, why):
        monkeypatch.setattr(scoring, "_WORTH_RETURNING", 0)
        if why == "too large":
            monkeypatch.setattr(compiled_scorer, "_MOST_BYTES", 50)
        layers = [L.Lambda(lambda x: x)] if why == "a layer of any function" else []
        score(randomised(keras.Sequential([keras.Input((5,)), *layers, L.Dense(3)])), "snip", self.DATA)
        if why == "dropped":
            monkeypatch.setattr(compiled_scorer, "_MOST_BYTES", 1)
            score(network(), "magnitude")
        elif why == "cleared":
            assert made[0]() is not None
            tf_pruneinit.clear_cache()
        assert not compiled_scorer._compiled
        assert not any(scorer() for scorer in made)


def not_to_be_read():
    raise AssertionError("data that is not needed was read")
    yield


@pytest.mark.parametrize("method", ["random", "magnitude", "synflow"])
def test_data_is_not_read_by_methods_that_need_none(model, method):
    tf_pruneinit.score(model, method, not_to_be_read())
    tf_pruneinit.score(model, method)


BAD_DATA = [
    (None, r"snip scores on labeled images: data=\(images, labels\) is needed; got None"),
    ([], "data must have a batch of labeled images; got none"),
    (iter([]), "data must have a batch of labeled images; got none"),
    (42, "data must be"),
    ("digits", "data must be"),
    (IMAGES, "data must be"),
    ({"images": IMAGES, "labels": LABELS}, "data must be"),
    ((IMAGES, LABELS, LABELS, LABELS), "data must be"),
    ((IMAGES, LABELS, LABELS[:5]), r"sample weights must be .* of 12 examples; got the shape \(5,\)"),
    ((IMAGES, LABELS, LABELS - 1), "sample weights must be finite numbers >= 0, .*; got -1 to 2"),
    ((IMAGES, LABELS, LABELS * 0), "sample weights must be .*, and not all 0; got 0 to 0"),
    ((IMAGES, LABELS, LABELS * np.nan), "sample weights must be .*; got some that are not finite"),
    (([IMAGES], [LABELS]), "data must be"),
    ((None, None), "images must be"),
    ((IMAGES, None), "labels must be integers"),
    ((None, LABELS), "images must be"),
    ((IMAGES[:0], LABELS[:0]), "images and labels must not be empty"),
    ((IMAGES, LABELS[:, None, None]), r"labels of shape \(12, 1, 1\)"),
    ((IMAGES, LABELS + 0.5), "labels that are not whole numbers"),
    ((IMAGES, [str(label) for label in LABELS]), "labels must be integers"),
    ((IMAGES, "labels"), "labels must be integers"),
    ((IMAGES, [[0], [1, 2]] * 6), "labels must be integers"),
    ((IMAGES, LABELS[:5]), r"labels of shape \(5,\) for 12 images"),
    (
        (IMAGES, np.ones((12, CLASSES))),
        r"labels must be integers, one-hot or probabilities .*; got float64 labels .* do not sum to 1: labels.argmax",
    ),
    ((IMAGES, np.eye(CLASSES + 1)[LABELS]), r"got float64 labels of shape \(12, 5\) for 12 images: the model gives 4 classes"),
    ((IMAGES[..., 0], LABELS), r"input shape \(6, 6, 1\); got the shape \(12, 6, 6\)"),
    ((IMAGES[0], LABELS), r"input shape \(6, 6, 1\); got the shape \(6, 6, 1\)"),
    ((IMAGES[:, :5], LABELS), r"got the shape \(12, 5, 6, 1\)"),
    ((np.array([None, "a"]), LABELS[:2]), "images must be"),
    ((np.full(IMAGES.shape, "a"), LABELS), "images must be"),
    ((np.ones(IMAGES.shape, "uint8"), LABELS), "images must be floating-point, .*; got uint8"),
    ((np.ones(IMAGES.shape, "int64"), LABELS), "images must be floating-point, .*; got int64"),
    ((np.ones(IMAGES.shape, bool), LABELS), "images must be floating-point"),
    ((IMAGES, LABELS + 1), r"labels must be in \[0, 4\), the model's outputs; got 1 to 4"),
    ((IMAGES, LABELS - 1), r"got -1 to 2"),
    ((IMAGES, LABELS * 0 + 2), "labels must be of two classes at least; got only 2"),
    ([(IMAGES, LABELS * 0 + 2), (IMAGES, LABELS * 0 + 2)], "labels must be of two classes at least; got only 2"),
    ((IMAGES * np.nan, LABELS), "scores must be finite"),
    ((np.where(np.isclose(IMAGES, IMAGES[3, 2, 2, 0]), np.inf, IMAGES), LABELS), "scores must be finite"),
    ([(IMAGES, LABELS), (IMAGES, LABELS + 1)], r"labels must be in \[0, 4\)"),
    ([(IMAGES, LABELS), IMAGES], "data must be"),
]


@pytest.mark.parametrize(("data", "message"), BAD_DATA)
@pytest.mark.usefixtures("eagerly")
def test_data_that_does_not_fit_is_one_clear_error(model, data, message):
    for function, arguments in ((tf_pruneinit.score, ()), (tf_pruneinit.prune, (0.5,))):
        with pytest.raises(UsageError, match=message) as caught:
            function(model, "snip", *arguments, data=data)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("data", [[], iter([])], ids=["list", "iterator"])
@pytest.mark.parametrize("method", METHODS_WITH_DATA)
def test_data_without_a_batch_is_an_error_also_where_gradients_are_accumulated(model, method, data):
    with pytest.raises(UsageError, match="data must have a batch of labeled images; got none"):
        score(model, method, data, accumulate="gradients")


@pytest.mark.usefixtures("eagerly")
def test_batches_of_one_class_each_are_accepted(model):
    batches = [(IMAGES[label::CLASSES], LABELS[label::CLASSES]) for label in range(CLASSES)]
    assert all(np.isfinite(z).all() for z in score(model, "snip", batches).values())


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (np.full((8, 5), "word"), "images must be"),
        (np.full((8, 6), 1), r"input shape \(5,\)"),
        (np.full((8, 5), 11), "."),
    ],
    ids=["text", "too long", "unknown word"],
)
def test_integer_inputs_that_do_not_fit_are_one_clear_error(words, message):
    with pytest.raises(UsageError, match=message) as caught:
        score(transformer(), "snip", (words, np.arange(8) % 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "obd"}, "method must be one of random, .*; got 'obd'"),
        ({"method": "sinp"}, r"got 'sinp' \(did you mean snip\?\)"),
        ({"method": None}, "method must be one of random, .*; got None"),
        ({"precision": "float16"}, "precision must be one of float32, float64; got 'float16'"),
        ({"precision": None}, "precision must be one of float32, float64; got None"),
        ({"accumulate": "mean"}, "accumulate must be one of scores, gradients; got 'mean'"),
        ({"accumulate": None}, "accumulate must be one of scores, gradients"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1; got 0"),
        ({"batch_size": -3}, "batch_size must be an integer >= 1"),
        ({"batch_size": 2.0}, "batch_size must be an integer >= 1"),
        ({"batch_size": "4"}, "batch_size must be an integer >= 1"),
        ({"batch_size": True}, "batch_size must be an integer >= 1"),
        ({"batch_size": 4, "data": [DATA]}, "batch_size splits"),
        ({"temperature": 0}, "temperature must be .*> 0; got 0"),
        ({"temperature": -1.0}, "temperature must be .*> 0; got -1.0"),
        ({"temperature": float("nan")}, "temperature must be .*> 0; got nan"),
        ({"temperature": float("inf")}, "temperature must be .*> 0; got inf"),
        ({"temperature": None}, "temperature must be .*> 0; got None"),
        ({"temperature": "200"}, "temperature must be .*> 0; got '200'"),
        ({"exclude": "conv"}, "exclude must be a sequence of patterns; got the string 'conv'"),
        ({"exclude": ["nothing"]}, "exclude must be patterns of .*; got 'nothing'"),
        ({"exclude": ["*"]}, "no prunable layer"),
    ],
)
@pytest.mark.usefixtures("eagerly")
def test_options_out_of_range_are_one_clear_error(model, options, message):
    for function, more in ((tf_pruneinit.score, {}), (tf_pruneinit.prune, {"sparsity": 0.5})):
        with pytest.raises(UsageError, match=message) as caught:
            function(model, **{"method": "grasp", "data": DATA} | more | options)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("eagerly")
def test_numbers_of_numpy_are_numbers(model):
    options = {"temperature": np.float32(2), "batch_size": np.int64(6)}
    require_same_bits(score(model, "grasp", **options), score(model, "grasp", temperature=2.0, batch_size=6))
    require_same_bits(score(model, "random", seed=np.int64(3)), score(model, "random", seed=3))


def unbuilt():
    return keras.Sequential([L.Dense(4)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (unbuilt, "the model must be built; got .*, which is not"),
        (Subclassed, "the model must be functional or sequential"),
        (lambda: L.Dense(3), "the model must be a Keras model; got Dense"),
        (lambda: None, "the model must be a Keras model; got NoneType"),
    ],
)
def test_models_that_cannot_be_scored_are_one_clear_error(build, message, method):
    with pytest.raises(UsageError, match=message) as caught:
        score(build(), method, (np.ones((8, 3)), np.arange(8) % 2))
    assert "\n" not in str(caught.value)


def test_a_layer_that_cannot_be_rebuilt_is_one_clear_error():
    class Unconfigured(L.Layer):
        def __init__(self, needed):
            super().__init__()

        def call(self, x):
            return x

    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(4)(Unconfigured(1)(inputs)))
    with pytest.raises(UsageError, match=r"Unconfigured\) cannot be made from its get_config") as caught:
        score(model, "snip", (np.ones((8, 3)), np.arange(8) % 2))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("method", [name for name in DIFFERENTIABLE if not registry.METHODS[name].learns])
def test_kernels_that_the_outputs_do_not_depend_on_score_zero(method):
    inputs = keras.Input((3,))
    x = L.Dense(4, name="one")(inputs)
    x = L.Add()([L.Dense(4, name="two")(0 * x), L.Dense(4, name="beside")(inputs)])
    scores = score(randomised(keras.Model(inputs, x)), method, (np.ones((8, 3)), np.arange(8) % 4))
    assert not scores["one/kernel"].any()
    assert scores["beside/kernel"].any()


@pytest.mark.usefixtures("eagerly")
def test_scoring_an_excluded_masked_layer_takes_its_raw_kernel(model):
    """The copy that `prune` makes drops the mask of a layer that is excluded."""
    masked = tf_pruneinit.prune(model, "random", 0.5)
    scores = score(masked, "snip", exclude=["conv"])
    pruned = tf_pruneinit.with_masks(masked, exclude=["conv"])
    assert list(masking.kernels(pruned)) == ["fc/kernel"]
    assert relative_error(scores, score(pruned, "snip", exclude=["conv"])) < 1e-6


@pytest.mark.usefixtures("eagerly")
class TestBatchNormWarmup:
    """Scores with moving statistics that are those of the data."""

    @pytest.fixture
    def model(self):
        inputs = keras.Input((5,))
        x = keras.layers.Dense(7, name="one")(inputs)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn", epsilon=0)(x))
        return keras.Model(inputs, keras.layers.Dense(3, name="two")(x))

    IMAGES = np.random.default_rng(0).normal(2.0, 3.0, size=(40, 5)).astype("float32")
    LABELS = np.arange(40) % 3

    def with_statistics(self, model, *batches):
        """A copy whose moving statistics are set by hand, to the mean over batches (the variance is of the unbiased kind)."""
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        outputs = [model.get_layer("one")(images).numpy() for images in batches]
        bn = copy.get_layer("bn")
        bn.moving_mean.assign(np.mean([x.mean(0) for x in outputs], 0))
        bn.moving_variance.assign(np.mean([x.var(0, ddof=1) for x in outputs], 0))
        return copy

    @pytest.mark.parametrize("method", [name for name, row in registry.METHODS.items() if row.warms_up])
    def test_is_scored_as_if_it_had_these_statistics_and_keeps_its_own(self, method, model):
        before = [weight.numpy() for weight in model.weights]
        batches = [(self.IMAGES[:20], self.LABELS[:20]), (self.IMAGES[20:], self.LABELS[20:])]
        got = score(model, method, batches, batch_norm_warmup=True, precision="float64")
        for old, weight in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(old, weight)
        assert any(np.abs(got[path] - z).max() > 1e-3 * z.max() for path, z in score(model, method, batches).items())
        if method == "synflow":
            expected = score(self.with_statistics(model, self.IMAGES[:20], self.IMAGES[20:]), method)
            for path, z in expected.items():
                np.testing.assert_allclose(got[path], z, rtol=1e-4)

    def test_gradients_do_not_pass_through_statistics(self, model):
        twin = self.with_statistics(model, self.IMAGES)
        for layer in twin.layers:
            layer.trainable = layer.name != "bn"  # Keras then normalises by moving statistics in training, too.
        expected = score(twin, "snip", (self.IMAGES, self.LABELS))
        got = score(model, "snip", (self.IMAGES, self.LABELS), batch_norm_warmup=True)
        for path, z in expected.items():
            np.testing.assert_allclose(got[path], z, rtol=2e-3, atol=1e-6)

    def test_statistics_need_data(self, model):
        with pytest.raises(UsageError, match=r"^batch_norm_warmup takes statistics on labeled images: data=.* got None$"):
            score(model, "synflow", None, batch_norm_warmup=True)

    @pytest.mark.parametrize("method", [name for name, row in registry.METHODS.items() if not row.warms_up])
    def test_others_do_not_read_it(self, method, model):
        for path, z in score(model, method, batch_norm_warmup=True).items():
            np.testing.assert_array_equal(z, score(model, method)[path])


class ReadTooFarError(Exception):
    pass


def endless(batches):
    """Raises as soon as more is read of it than that."""
    for _ in range(batches):
        yield DATA
    raise ReadTooFarError


@pytest.mark.usefixtures("eagerly")
class TestDataWithoutAnEnd:
    @pytest.mark.parametrize("options", [{}, {"accumulate": "gradients"}, {"batch_norm_warmup": True}], ids=str)
    def test_a_generator_is_read_no_further_than_it_may_go(self, model, options, monkeypatch):
        monkeypatch.setattr(scoring_data, "MOST_BATCHES", 3)
        with pytest.raises(UsageError, match="must end within 3 batches; got more"):
            score(model, "snip", endless(4), **options)

    def test_iterative_methods_read_it_once(self, model, monkeypatch):
        monkeypatch.setattr(scoring_data, "MOST_BATCHES", 3)
        with pytest.raises(UsageError, match="must end within 3 batches; got more"):
            tf_pruneinit.prune(model, "iterative_snip", 0.5, endless(4), iterations=2)
        pruned = tf_pruneinit.prune(model, "iterative_snip", 0.5, iter([DATA, DATA]), iterations=2)
        again = tf_pruneinit.prune(model, "iterative_snip", 0.5, [DATA, DATA], iterations=2)
        require_same_bits(tf_pruneinit.masks(pruned), tf_pruneinit.masks(again))

    def test_batches_that_are_read_again_must_fit_into_memory(self, model, monkeypatch):
        size = IMAGES.size * 4
        monkeypatch.setattr(machine, "free_memory", lambda: 2 * 2 * size)
        score(model, "snip", iter([DATA, DATA]), accumulate="gradients")
        with pytest.raises(
            UsageError,
            match=rf"half of the free memory; got {3 * size:,} bytes and more: give a tf.data.Dataset, which can be read again",
        ):
            score(model, "snip", endless(3), accumulate="gradients")

    def test_what_is_read_once_need_not_fit_into_memory(self, model, monkeypatch):
        monkeypatch.setattr(machine, "free_memory", lambda: 0)
        require_same_bits(score(model, "snip", iter([DATA, DATA])), score(model, "snip", [DATA, DATA]))

    @pytest.mark.parametrize("accumulate", ["scores", "gradients"])
    def test_a_dataset_that_repeats_is_refused(self, model, accumulate):
        data = tf.data.Dataset.from_tensor_slices(DATA).batch(4)
        with pytest.raises(UsageError, match=r"repeats forever: leave repeat\(\) out, or give dataset.take\(n\)$"):
            score(model, "snip", data.repeat(), accumulate=accumulate)
        require_same_bits(score(model, "snip", data.repeat().take(3)), score(model, "snip", data))

    def test_a_sequence_of_keras_is_read_once_to_its_end(self, model):
        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 2

            def __getitem__(self, place):
                return IMAGES[place::2], LABELS[place::2]

        expected = score(model, "snip", [(IMAGES[place::2], LABELS[place::2]) for place in range(2)])
        require_same_bits(score(model, "snip", Batches()), expected)

    def test_images_and_labels_may_be_lists(self, model):
        require_same_bits(score(model, "snip", (list(IMAGES), LABELS.tolist())), score(model, "snip", DATA))


@pytest.mark.slow
def test_what_tensorflow_cannot_compute_is_said_with_its_cause(model):
    words = np.full((8, 5), 11)
    with pytest.raises(UsageError, match=r"^the model cannot be computed on these examples: indices.* = 11 is not in \[0, "):
        score(transformer(), "snip", (words, np.arange(8) % 3))
