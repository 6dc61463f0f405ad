"""Removed weights have no effect, whatever trains the model: penalties, constraints and every optimizer of Keras see zeros."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.layers import masked as layers
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import strip
from tf_pruneinit.runtime import devices

L = keras.layers
optimizers = keras.optimizers
# Keras 3.12 takes no functions as regularizers and constraints, and its Muon fails with variables of TensorFlow.
IS_OLDEST = keras.__version__.startswith("3.12.")
not_in_the_oldest = pytest.mark.skipif(IS_OLDEST, reason="Muon of Keras 3.12 fails with variables of TensorFlow")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 6)).astype("float32"), RNG.normal(size=(8, 3)).astype("float32")
# Those that hold others are in OPTIONS.
OPTIMIZERS = [
    cls
    for cls in vars(optimizers).values()
    if isinstance(cls, type) and issubclass(cls, optimizers.Optimizer)
    if cls is not optimizers.Optimizer and cls.__name__ not in ("LossScaleOptimizer", "MultiOptimizer")
    if not (IS_OLDEST and cls is optimizers.Muon)
]
# They scale a step by the norm of the weights that there are before it.
READ_NORMS = (optimizers.Lamb, optimizers.Adafactor)
OPTIONS = [
    {"clipnorm": 0.1, "weight_decay": 0.1},
    {"global_clipnorm": 0.1, "use_ema": True, "ema_overwrite_frequency": 2},
    {"clipvalue": 0.1, "gradient_accumulation_steps": 2},
]


@keras.saving.register_keras_serializable("tests")
def _shifted(kernel):
    """A constraint that depends on all weights and leaves none at zero."""
    return kernel - keras.ops.mean(kernel) + 0.1


@keras.saving.register_keras_serializable("tests")
def _of_pairs(kernel):
    return 0.1 * keras.ops.sum(keras.ops.square(kernel - keras.ops.flip(kernel, axis=0)))


if IS_OLDEST:

    @keras.saving.register_keras_serializable("tests")
    class OfPairs(keras.regularizers.Regularizer):
        function = staticmethod(_of_pairs)

        def __call__(self, kernel):
            return self.function(kernel)

        def get_config(self):
            return {}

    @keras.saving.register_keras_serializable("tests")
    class Shifted(keras.constraints.Constraint):
        function = staticmethod(_shifted)

        def __call__(self, kernel):
            return self.function(kernel)

    _of_pairs, _shifted = OfPairs(), Shifted()


def network(every=True):
    """A layer for each regularizer and each constraint, or for two pairs of them, side by side."""
    inputs = keras.Input((6,))
    r, c = keras.regularizers, keras.constraints
    both = r.L1L2(0.01, 0.01)
    held = [(both, None), (_of_pairs, _shifted)]
    if every:
        held += [(None, None), (r.OrthogonalRegularizer(0.1), c.MaxNorm(0.5)), (_of_pairs, c.UnitNorm())]
        held += [(None, c.NonNeg()), (both, c.MinMaxNorm(0.2, 0.5)), (None, _shifted)]
    each = [L.Dense(3, kernel_regularizer=penalty, kernel_constraint=rule) for penalty, rule in held]
    return keras.Model(inputs, L.Add()([layer(inputs) for layer in each]))


@functools.cache
def _masked(every):
    model = tf_pruneinit.with_masks(network(every))
    masks = {path: RNG.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(model).items()}
    return model, [variable.numpy() for variable in model.variables], masks


def masked(every=False):
    """The masked model with its first weights and without removed ones, and masks."""
    model, values, masks = _masked(every)
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)
    return model, masks


def spoil(model, masks, seed):
    """Gives weights that masks remove, or will, other values."""
    generator = np.random.default_rng(seed)
    for path, kernel in masking.kernels(model).items():
        noise = generator.normal(size=masks[path].shape) * 10
        kernel.variable.assign(np.where(masks[path] != 0, kernel.variable, noise))


def train(model, optimizer, steps=2):
    """The losses of steps on the same examples."""
    model.compile(optimizer, "mse", run_eagerly=True)
    losses = []
    for _ in range(steps):
        model.reset_metrics()  # Keras 3.12 returns the mean over batches.
        losses.append(model.train_on_batch(X, Y))
    return losses


def outcome(model, losses):
    """All that can be computed with a model, and how it was trained."""
    kernels = {id(kernel.variable) for kernel in masking.kernels(model).values()}
    others = [variable.numpy() for variable in model.trainable_variables if id(variable) not in kernels]
    return [kernel.value for kernel in masking.kernels(model).values()] + others + [losses, model.losses]


def require_same(found):
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def spoiled_before(make, every=False):
    for seed in (1, 2):
        model, masks = masked(every)
        spoil(model, masks, seed)
        tf_pruneinit.set_masks(model, masks)
        yield outcome(model, train(model, make()))


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_their_values_before_change_no_bit_under_any_optimizer(cls):
    require_same(spoiled_before(lambda: cls(0.05)))


@pytest.mark.slow
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_they_are_zeros_after_ten_steps_of_any_optimizer(cls):
    model, masks = masked()
    tf_pruneinit.set_masks(model, masks)
    before = [kernel.value for kernel in masking.kernels(model).values()]
    train(model, cls(0.05), steps=10)
    for (path, kernel), was in zip(masking.kernels(model).items(), before, strict=True):
        assert not kernel.variable.numpy()[masks[path] == 0].any()
        assert not np.array_equal(kernel.value, was)


@pytest.mark.slow
def test_their_values_before_change_no_bit_under_any_penalty_and_constraint():
    require_same(spoiled_before(lambda: optimizers.Lamb(0.05), every=True))


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_their_values_before_change_no_bit_with_any_option(options):
    require_same(spoiled_before(lambda: optimizers.Lamb(0.05, **options)))


@pytest.mark.parametrize(
    "wrap",
    [
        optimizers.LossScaleOptimizer,
        pytest.param(
            lambda one: optimizers.MultiOptimizer(optimizers.OptimizerMap(one, {".*bias": optimizers.SGD()})),
            marks=pytest.mark.skipif(not hasattr(optimizers, "MultiOptimizer"), reason="this version of Keras has none"),
        ),
    ],
)
def test_their_values_before_change_no_bit_within_another_optimizer(wrap):
    require_same(spoiled_before(lambda: wrap(optimizers.Lamb(0.05))))


@pytest.mark.parametrize("cls", [optimizers.SGD, optimizers.AdamW, optimizers.Ftrl, optimizers.Nadam])
def test_values_that_are_assigned_to_them_change_no_bit(cls):
    found = []
    for seed in (1, 2):
        model, masks = masked()
        tf_pruneinit.set_masks(model, masks)
        train(model, cls(0.05), steps=1)
        spoil(model, masks, seed)
        found.append(outcome(model, [model.train_on_batch(X, Y) for _ in range(2)]))
    require_same(found)


@pytest.mark.parametrize("cls", READ_NORMS)
def test_values_that_are_assigned_to_them_are_zeros_after_a_step(cls):
    model, masks = masked()
    tf_pruneinit.set_masks(model, masks)
    spoil(model, masks, 1)
    train(model, cls(0.05), steps=1)
    for path, kernel in masking.kernels(model).items():
        assert not kernel.variable.numpy()[masks[path] == 0].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "every"),
    [
        (lambda: optimizers.SGD(0.05, 0.9), True),
        (lambda: optimizers.Lamb(0.05), False),
        (lambda: optimizers.Adafactor(0.05), False),
        pytest.param(lambda: optimizers.Muon(0.05), False, marks=not_in_the_oldest),
    ],
    ids=["SGD", "Lamb", "Adafactor", "Muon"],
)
def test_steps_are_those_of_a_network_whose_removed_weights_are_zeros(make, every):
    model, masks = masked(every)
    spoil(model, masks, 1)
    tf_pruneinit.set_masks(model, masks)
    plain, kernels = strip.without_masks(model)
    left = {id(kernel.variable): masks[path].astype("float32") for path, kernel in kernels.items()}
    # A constraint comes after the removal: Muon moves weights without a gradient too, and it is not to see them.
    rules = {id(kernel.variable): kernel.variable.constraint or tf.identity for kernel in kernels.values()}
    for kernel in kernels.values():
        kernel.variable.constraint = None
    optimizer, losses = make(), []
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(plain(X, training=True) - Y)) + tf.add_n(plain.losses)
        gradients = tape.gradient(loss, [variable.value for variable in plain.trainable_variables])
        pairs = zip(gradients, plain.trainable_variables, strict=True)
        optimizer.apply([g * left.get(id(v), 1.0) for g, v in pairs], plain.trainable_variables)
        for kernel in kernels.values():
            mask = left[id(kernel.variable)]
            kernel.variable.assign(rules[id(kernel.variable)](kernel.variable * mask) * mask)
        losses.append(loss)
    np.testing.assert_allclose(train(model, make(), steps=3), losses, rtol=1e-5)
    for path, kernel in masking.kernels(model).items():
        np.testing.assert_allclose(kernel.value, kernels[path].variable, rtol=0, atol=1e-5)


def test_what_an_optimizer_has_gathered_of_them_is_gone():
    model, masks = masked()
    train(model, optimizers.Lamb(0.05))
    tf_pruneinit.set_masks(model, masks)
    removed = {id(kernel.variable): masks[path] == 0 for path, kernel in masking.kernels(model).items()}
    for moments in (model.optimizer._momentums, model.optimizer._velocities):
        for weight, moment in zip(model.trainable_variables, moments, strict=True):
            if id(weight) in removed:
                assert not moment.numpy()[removed[id(weight)]].any()
                assert moment.numpy()[~removed[id(weight)]].any()


@pytest.mark.slow
@not_in_the_oldest
@pytest.mark.parametrize("how", ["XLA", "two replicas in half precision"])
def test_are_zeros_after_every_step_however_it_is_executed(how):
    replicas, policy = (1, "float32") if how == "XLA" else (2, "mixed_float16")
    strategy = devices.strategy(replicas)
    with strategy.scope():
        inputs = keras.Input((6,))
        layer = L.Dense(3, dtype=policy, kernel_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(0.5))
        x = layer(inputs)
        model = tf_pruneinit.with_masks(keras.Model(inputs, L.Dense(3, name="fc")(x)))
        masks = {path: RNG.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(model).items()}
        tf_pruneinit.set_masks(model, masks)
        model.compile(optimizers.Muon(0.05, ns_steps=1), "mse", jit_compile=how == "XLA")
    before = [kernel.value for kernel in masking.kernels(model).values()]
    model.fit(X, Y, verbose=0)
    for (path, kernel), old in zip(masking.kernels(model).items(), before, strict=True):
        for copy in strategy.experimental_local_results(kernel.variable.value):
            assert not copy.numpy()[masks[path] == 0].any()
        assert (kernel.value != old).any()


class TestPenalty:
    def model(self, make, shape=(6,)):
        inputs = keras.Input(shape)
        return keras.Model(inputs, L.Dense(2, name="fc")(make()(inputs)))

    def penalty_of_zeros(self, masked):
        return sum(float(loss) for loss in strip.without_masks(masked)[0].losses)

    @pytest.mark.parametrize(
        ("make", "shape"),
        [
            (lambda: L.Dense(4, kernel_regularizer="l1"), (6,)),
            (lambda: L.SeparableConv1D(3, 2, depthwise_regularizer="l2", pointwise_regularizer="l1"), (5, 6)),
            (lambda: L.MultiHeadAttention(2, 2, kernel_regularizer="l2"), (5, 6)),
            (lambda: L.TimeDistributed(L.Dense(3, kernel_regularizer="l1")), (5, 6)),
            (lambda: L.LSTM(3, kernel_regularizer="l1", recurrent_regularizer="l2"), (5, 6)),
            (lambda: keras.Sequential([keras.Input((6,)), L.Dense(3, kernel_regularizer="l2")]), (6,)),
        ],
    )
    @pytest.mark.filterwarnings("ignore:no weight remains")
    def test_counts_remaining_weights_alone(self, make, shape, tmp_path):
        layer = make()
        call = (lambda: lambda x: layer(x, x)) if isinstance(layer, L.MultiHeadAttention) else lambda: layer
        model = self.model(call, shape)
        pruned = tf_pruneinit.prune(model, "random", 0.9)
        expected = self.penalty_of_zeros(pruned)
        assert 0 < expected < 0.5 * sum(float(loss) for loss in model.losses)
        assert sum(map(float, pruned.losses)) == pytest.approx(expected, rel=1e-6)
        spoil(pruned, tf_pruneinit.masks(pruned), 1)
        assert sum(map(float, pruned.losses)) == pytest.approx(expected, rel=1e-6)
        pruned.save(tmp_path / "model.keras")
        for other in (keras.models.load_model(tmp_path / "model.keras"), tf_pruneinit.with_masks(pruned)):
            assert sum(map(float, other.losses)) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("penalty", "rule"), [("l2", None), ("l1", "max_norm"), ("orthogonal_regularizer", None), (None, _shifted)]
    )
    def test_is_that_of_a_compact_network_too_step_by_step(self, penalty, rule):
        inputs = keras.Input((30,))
        held = {"kernel_regularizer": penalty, "kernel_constraint": rule}
        x = L.Dense(40, "relu", name="second", **held)(L.Dense(40, "relu", name="first", **held)(inputs))
        model = tf_pruneinit.with_masks(keras.Model(inputs, L.Dense(2, name="fc")(x)))
        masks = {path: np.zeros_like(mask) for path, mask in tf_pruneinit.masks(model).items()}
        # Neurons with weights that lead nowhere, which a penalty counts, and neurons without any.
        masks["first/kernel"][:, :5], masks["second/kernel"][:3, :6], masks["fc/kernel"][:2] = 1, 1, 1
        tf_pruneinit.set_masks(model, masks)
        small = tf_pruneinit.compact(model)
        assert sum(map(float, small.model.losses)) == pytest.approx(sum(map(float, model.losses)), rel=1e-6)
        if penalty in ("l2", "l1"):
            assert small.model.get_layer("first").units < 40
        generator = np.random.default_rng(1)
        x, y = generator.normal(size=(8, 30)), generator.normal(size=(8, 2))
        losses = []
        for each in (model, small.model):
            each.compile(optimizers.SGD(0.1), "mse", run_eagerly=True)
            losses.append([each.train_on_batch(x, y) for _ in range(3)])
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.slow
def test_prune_leaves_zeros_and_the_model_as_it_was():
    model = network()
    before = [variable.numpy() for variable in model.variables]
    pruned = tf_pruneinit.prune(model, "magnitude", 0.7)
    for path, kernel in masking.kernels(pruned).items():
        mask = tf_pruneinit.masks(pruned)[path]
        assert (kernel.variable.numpy() == kernel.value).all()
        assert not kernel.variable.numpy()[mask == 0].any()
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_layer_keeps_the_users_functions_in_its_attributes_and_configuration():
    rule = keras.constraints.MaxNorm(0.5)
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, kernel_regularizer="l2", kernel_constraint=rule)])
    (layer,) = tf_pruneinit.with_masks(model).layers
    assert type(layer.kernel_regularizer) is keras.regularizers.L2
    assert type(layer.kernel_constraint) is keras.constraints.MaxNorm
    for name in ("kernel_regularizer", "kernel_constraint"):
        assert layer.get_config()[name] == model.layers[0].get_config()[name]
    assert layers.own_function(layer._kernel.constraint).max_value == 0.5
