import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import layers, ranking, tables
from tf_pruneinit.errors import UsageError

RNG = np.random.default_rng(0)
CLASSES = 4
DATA = RNG.normal(size=(12, 6, 6, 1)).astype("float32"), np.arange(12) % CLASSES
TOTAL = 3 * 3 * 3 + 48 * CLASSES
KERNELS = {"conv/kernel": (3, 3, 1, 3), "fc/kernel": (48, CLASSES)}

every_method = pytest.mark.parametrize("method", tables.METHODS)
methods_with_data = [name for name, row in tables.METHODS.items() if row.needs_data]
pytestmark = pytest.mark.filterwarnings("ignore:no weight is left")


def network(activation=None, head=None, policy=None):
    """Convolution, Keras' own batch normalisation, dense layer, with weights and statistics that are nothing special."""
    rng = np.random.default_rng(1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy or before)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(3, 3, name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    x = keras.layers.Dense(CLASSES, activation, name="fc")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, head(x) if head else x)
    keras.config.set_dtype_policy(before)
    for variable in model.variables:
        values = rng.normal(size=variable.shape)
        variable.assign(np.abs(values) if "variance" in variable.name else values)
    return model


@pytest.fixture
def model():
    return network()


def snapshot(model):
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer else [])]
    return [variable.numpy() for variable in variables]


def require_equal(got, expected, **tolerance):
    assert list(got) == list(expected)
    for path, values in expected.items():
        assert got[path].dtype == values.dtype
        np.testing.assert_allclose(got[path], values, **({"rtol": 0} | tolerance), err_msg=path)


@every_method
class TestEveryMethod:
    def test_scores_are_finite_floats_of_the_kernels_shapes_in_model_order(self, method, model):
        scores = tf_pruneinit.score(model, method, DATA)
        assert {path: z.shape for path, z in scores.items()} == KERNELS
        assert list(scores) == list(KERNELS)
        for z in scores.values():
            assert isinstance(z, np.ndarray)
            assert z.dtype == ("float64" if method in ("random", "synflow") else "float32")
            assert np.isfinite(z).all()
            assert len(np.unique(z)) > 3

    def test_the_model_stays_as_it_is_bit_for_bit(self, method, model):
        model.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.optimizer.build(model.trainable_variables)
        before = snapshot(model)
        tf_pruneinit.score(model, method, DATA)
        tf_pruneinit.prune(model, method, 0.5, DATA)
        for old, new in zip(before, snapshot(model), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_eager_equals_compiled(self, method, model):
        compiled = tf_pruneinit.score(model, method, DATA)
        tf.config.run_functions_eagerly(True)
        try:
            eager = tf_pruneinit.score(model, method, DATA)
        finally:
            tf.config.run_functions_eagerly(False)
        largest = max(np.abs(z).max() for z in compiled.values())
        require_equal(eager, compiled, rtol=1e-5, atol=1e-6 * largest)

    @pytest.mark.parametrize("scope", ranking.SCOPES)
    def test_prunes_to_exactly_the_sparsity(self, method, scope, model):
        for sparsity in (0.0, 0.89, 0.999):
            pruned = tf_pruneinit.prune(model, method, sparsity, DATA, iterations=1, scope=scope)
            counts = {path: int(mask.sum()) for path, mask in tf_pruneinit.masks(pruned).items()}
            assert sum(counts.values()) == round((1 - sparsity) * TOTAL)
            if scope == "layerwise":
                for path, count in counts.items():
                    assert abs(count - (1 - sparsity) * np.prod(KERNELS[path])) < 1

    def test_one_shot_masks_keep_the_highest_scores_and_all_weights_stay(self, method, model):
        pruned = tf_pruneinit.prune(model, method, 0.6, DATA, iterations=1)
        require_equal(tf_pruneinit.masks(pruned), ranking.global_masks(tf_pruneinit.score(model, method, DATA), 0.6))
        for path, layer in layers.kernels(pruned).items():
            np.testing.assert_array_equal(layer._kernel, model.get_layer(path.split("/")[0]).kernel)

    def test_iterations_take_the_schedule_and_never_revive(self, method, model, monkeypatch):
        masks = [{path: np.ones(shape) for path, shape in KERNELS.items()}]

        def record(scores, sparsity, within):
            masks.append(ranking.global_masks(scores, sparsity, within))
            return masks[-1]

        monkeypatch.setitem(ranking.SCOPES, "global", record)
        tf_pruneinit.prune(model, method, 0.9, DATA, iterations=4)
        assert [sum(int(m.sum()) for m in step.values()) for step in masks] == [round(0.1 ** (n / 4) * TOTAL) for n in range(5)]
        for before, after in itertools.pairwise(masks):
            assert all((after[path] <= before[path]).all() for path in KERNELS)

    def test_iterations_are_reported_and_by_default_the_methods_own(self, method, model):
        seen = []
        tf_pruneinit.prune(model, method, 0.5, DATA, on_iteration=lambda *progress: seen.append(progress))
        own = {"synflow": 100}.get(method, 1)
        assert seen == [(n, own) for n in range(1, own + 1)]

    def test_masks_that_are_there_are_kept(self, method, model):
        first = tf_pruneinit.prune(model, "random", 0.5, seed=5)
        second = tf_pruneinit.prune(first, method, 0.8, DATA, iterations=1)
        for path, mask in tf_pruneinit.masks(second).items():
            assert (mask <= tf_pruneinit.masks(first)[path]).all()
        with pytest.raises(UsageError, match="pruning never brings weights back"):
            tf_pruneinit.prune(first, method, 0.3, DATA, iterations=1)

    def test_a_softmax_at_the_end_is_left_out(self, method, model):
        expected = tf_pruneinit.score(model, method, DATA)
        require_equal(tf_pruneinit.score(network("softmax"), method, DATA), expected)
        require_equal(tf_pruneinit.score(network(head=keras.layers.Activation("softmax")), method, DATA), expected)

    def test_a_softmax_layer_at_the_end_is_left_out(self, method, model):
        expected = tf_pruneinit.score(model, method, DATA)
        require_equal(tf_pruneinit.score(network(head=keras.layers.Softmax()), method, DATA), expected)
        nested = network(head=keras.Sequential([keras.Input((CLASSES,)), keras.layers.Softmax()]))
        require_equal(tf_pruneinit.score(nested, method, DATA), expected, rtol=1e-6)

    @pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
    def test_scores_do_not_depend_on_the_precision_of_the_model(self, method, model, policy):
        other = network(policy=policy)
        assert other.get_layer("conv").compute_dtype != "float32"
        for mine, its in zip(model.variables, other.variables, strict=True):
            its.assign(mine.numpy())
        require_equal(tf_pruneinit.score(other, method, DATA), tf_pruneinit.score(model, method, DATA))

    def test_a_model_without_kernels_is_refused(self, method):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.ReLU()(inputs))
        with pytest.raises(UsageError, match="the model has no prunable layer"):
            tf_pruneinit.score(model, method, (np.ones((1, 3)), [0]))


@pytest.mark.parametrize("method", methods_with_data)
class TestMethodsWithData:
    @pytest.fixture
    def batches(self):
        images, labels = DATA
        return [(images[:4], labels[:4]), (images[4:8], labels[4:8]), (images[8:], labels[8:])]

    def test_several_batches_average_the_scores(self, method, model, batches):
        each = [tf_pruneinit.score(model, method, batch) for batch in batches]
        expected = {path: np.mean([scores[path] for scores in each], axis=0) for path in KERNELS}
        got = tf_pruneinit.score(model, method, batches)
        largest = max(np.abs(z).max() for z in expected.values())
        require_equal(got, expected, rtol=1e-5, atol=1e-6 * largest)
        whole = tf_pruneinit.score(model, method, DATA)
        assert not np.allclose(got["fc/kernel"], whole["fc/kernel"], rtol=1e-3, atol=1e-5 * largest)

    @pytest.mark.parametrize("kind", ["dataset", "generator", "tuple", "tensors"])
    def test_batches_come_in_any_iterable(self, method, model, batches, kind):
        data = {
            "dataset": tf.data.Dataset.from_tensor_slices(DATA).batch(4),
            "generator": (batch for batch in batches),
            "tuple": tuple(batches),
            "tensors": [tuple(map(tf.constant, batch)) for batch in batches],
        }[kind]
        require_equal(
            tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.9, data, iterations=3)),
            tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.9, batches, iterations=3)),
        )

    def test_two_batches_in_a_tuple_are_not_images_and_labels(self, method, model, batches):
        pair = batches[:2]
        require_equal(tf_pruneinit.score(model, method, tuple(pair)), tf_pruneinit.score(model, method, iter(pair)))

    @pytest.mark.parametrize("kind", ["list", "bytes", "float64"])
    def test_images_and_labels_of_other_types_count_as_numbers(self, method, model, kind):
        images, labels = np.round(DATA[0] * 40).clip(0), DATA[1]
        data = {
            "list": (images, labels.tolist()),
            "bytes": (images.astype("uint8"), labels.astype("uint8")),
            "float64": (images.astype("float64"), labels.astype("int64")),
        }[kind]
        require_equal(tf_pruneinit.score(model, method, data), tf_pruneinit.score(model, method, (images, labels)))


@pytest.fixture
def half_precision():
    """The global policy of a user who trains in mixed precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


class TestSequentialModels:
    """Those have a precision of their own, to which Keras casts their inputs."""

    def build(self):
        head = keras.Sequential([keras.Input((48,)), keras.layers.Dense(CLASSES, name="fc")], name="head")
        convolution = keras.layers.Conv2D(3, 3, name="conv")
        model = keras.Sequential([keras.Input((6, 6, 1)), convolution, keras.layers.Flatten(), head], name="sequential")
        rng = np.random.default_rng(2)
        for variable in model.variables:
            variable.assign(rng.normal(size=variable.shape))
        return model

    def test_scores_do_not_depend_on_the_global_precision(self, half_precision):
        got = tf_pruneinit.score(self.build(), "snip", DATA)
        keras.config.set_dtype_policy("float32")
        require_equal(got, tf_pruneinit.score(self.build(), "snip", DATA))

    def test_synflow_is_in_float64_throughout(self):
        model = self.build()
        for weight in model.trainable_weights:
            weight.assign(np.full(weight.shape, 1e38))
        scores = tf_pruneinit.score(model, "synflow")
        assert all(np.isfinite(z).all() and z.min() > 1e76 for z in scores.values())


def test_a_model_compiled_with_a_loss_of_the_users_own_is_pruned(model):
    model.compile("sgd", lambda targets, outputs: tf.reduce_mean(tf.abs(targets - outputs)))
    assert tf_pruneinit.summary(tf_pruneinit.prune(model, "magnitude", 0.5)).remaining == round(0.5 * TOTAL)


def test_a_layer_left_without_weights_is_a_warning_that_names_it(model):
    model.get_layer("conv").kernel.assign(np.zeros(KERNELS["conv/kernel"]))
    with pytest.warns(UserWarning, match=r"^no weight is left in conv/kernel: the network is cut there$"):
        tf_pruneinit.prune(model, "magnitude", 0.9)


IMAGES, LABELS = DATA


def endless():
    raise AssertionError("data that is not needed was read")
    yield


def test_data_is_not_read_by_methods_that_need_none(model):
    tf_pruneinit.score(model, "synflow", endless())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"snip scores on labelled images: data=\(images, labels\) is needed; got None"),
        ([], "data without a batch"),
        (iter([]), "data without a batch"),
        (42, "data must be"),
        ("digits", "data must be"),
        (IMAGES, "data must be"),
        ({"images": IMAGES, "labels": LABELS}, "data must be"),
        ((IMAGES, LABELS, LABELS), "data must be"),
        (([IMAGES], [LABELS]), "data must be"),
        ((None, None), "images must be"),
        ((IMAGES, None), "labels must be integers"),
        ((None, LABELS), "images must be"),
        ((IMAGES[:0], LABELS[:0]), "images and labels must not be empty"),
        ((IMAGES, np.eye(CLASSES)[LABELS]), r"labels must be integers, one an image \(not one-hot\); got float64"),
        ((IMAGES, np.eye(CLASSES, dtype=int)[LABELS]), r"\(not one-hot\); got int64 labels of shape \(12, 4\) for 12 images"),
        ((IMAGES, LABELS[:, None]), r"labels of shape \(12, 1\)"),
        ((IMAGES, LABELS.astype(float)), "labels must be integers"),
        ((IMAGES, [str(label) for label in LABELS]), "labels must be integers"),
        ((IMAGES, LABELS[:5]), r"labels of shape \(5,\) for 12 images"),
        ((IMAGES[..., 0], LABELS), r"input shape \(6, 6, 1\); got the shape \(12, 6, 6\)"),
        ((IMAGES[0], LABELS), r"input shape \(6, 6, 1\); got the shape \(6, 6, 1\)"),
        ((IMAGES[:, :5], LABELS), r"got the shape \(12, 5, 6, 1\)"),
        ((np.array([None, "a"]), LABELS[:2]), "images must be"),
        ((np.full(IMAGES.shape, "a"), LABELS), "images must be"),
        ((IMAGES, LABELS + 1), r"labels must be in \[0, 4\), the model's outputs; got 1 to 4"),
        ((IMAGES, LABELS - 1), r"got -1 to 2"),
        ((IMAGES * np.nan, LABELS), "scores must be finite"),
    ],
)
@pytest.mark.parametrize("function", ["score", "prune"])
def test_data_that_does_not_fit_is_one_clear_error(model, data, message, function):
    arguments = {"score": (), "prune": (0.5,)}[function]
    with pytest.raises(UsageError, match=message) as caught:
        getattr(tf_pruneinit, function)(model, "snip", *arguments, data=data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "obd"}, "method must be one of random, .*; got 'obd'"),
        ({"method": None}, "method must be one of random, .*; got None"),
        ({"sparsity": 1}, r"must be in \[0, 1\); got 1"),
        ({"sparsity": -0.1}, r"must be in \[0, 1\); got -0.1"),
        ({"sparsity": 95}, r"must be in \[0, 1\)"),
        ({"sparsity": float("nan")}, r"must be in \[0, 1\); got nan"),
        ({"sparsity": "0.5"}, r"must be in \[0, 1\); got '0.5'"),
        ({"sparsity": None}, r"must be in \[0, 1\); got None"),
        ({"iterations": 0}, "iterations must be an integer >= 1; got 0"),
        ({"iterations": 2.5}, "iterations must be an integer >= 1; got 2.5"),
        ({"iterations": "3"}, "iterations must be an integer >= 1; got '3'"),
        ({"iterations": True}, "iterations must be an integer >= 1; got True"),
        ({"scope": "local"}, "scope must be one of global, layerwise; got 'local'"),
        ({"temperature": 0}, "temperature must be .*> 0; got 0"),
        ({"temperature": -1.0}, "temperature must be .*> 0; got -1.0"),
        ({"temperature": float("nan")}, "temperature must be .*> 0; got nan"),
        ({"temperature": float("inf")}, "temperature must be .*> 0; got inf"),
        ({"temperature": None}, "temperature must be .*> 0; got None"),
        ({"temperature": "200"}, "temperature must be .*> 0; got '200'"),
    ],
)
def test_options_out_of_range_are_one_clear_error(model, options, message):
    arguments = {"method": "grasp", "sparsity": 0.5, "data": DATA} | options
    with pytest.raises(UsageError, match=message) as caught:
        tf_pruneinit.prune(model, **arguments)
    assert "\n" not in str(caught.value)
