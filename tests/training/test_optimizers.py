import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.training import optimizers

RNG = np.random.default_rng(0)
BASE, DROPS, WARMUP, MOMENTUM, L2 = 0.5, (5, 8), 3, 0.9, 0.01
RATES = [0, 0.5 / 3, 1 / 3, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005]
START = RNG.normal(size=(3, 2))
GRADIENTS = RNG.normal(size=(10, 3, 2))


def sgd(**options):
    schedule = optimizers.StepSchedule(BASE, DROPS, WARMUP)
    return optimizers.SGD(**{"learning_rate": schedule, "momentum": MOMENTUM, "l2": L2} | options)


def rule(gradient, start=START, momentum=MOMENTUM, l2=L2):
    """The weights after each step, by the paper's rule in float64; `gradient(weights, step)` is without the L2 term."""
    w, v, history = np.array(start, "float64"), 0.0, []
    for step, rate in enumerate(RATES):
        v = momentum * v + gradient(w, step) + l2 * w
        w = w - rate * v
        history.append(w)
    return np.array(history)


def require_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    return tf.function if request.param == "compiled" else lambda function: function


@pytest.mark.parametrize(("momentum", "l2"), [(MOMENTUM, L2), (0.0, L2), (MOMENTUM, 0.0)])
def test_ten_steps_with_warm_up_and_drops_follow_the_rule(momentum, l2, mode):
    weights = keras.Variable(START)
    optimizer = sgd(momentum=momentum, l2=l2)
    optimizer.build([weights])
    step = mode(lambda gradient: optimizer.apply([gradient], [weights]))
    history = []
    for gradient in GRADIENTS:
        step(tf.constant(gradient, tf.float32))
        history.append(weights.numpy())
    require_close(history, rule(lambda w, step: GRADIENTS[step], momentum=momentum, l2=l2))


def test_nesterov_looks_ahead_by_the_new_velocity(mode):
    weights = keras.Variable(START)
    optimizer = sgd(nesterov=True)
    optimizer.build([weights])
    step = mode(lambda gradient: optimizer.apply([gradient], [weights]))
    w, v = np.array(START), 0.0
    for rate, gradient in zip(RATES, GRADIENTS, strict=True):
        step(tf.constant(gradient, tf.float32))
        g = gradient + L2 * w
        v = MOMENTUM * v + g
        w = w - rate * (g + MOMENTUM * v)
    require_close(weights, w)


@pytest.mark.slow
def test_adamw_is_keras_own(mode):
    def trained(optimizer):
        weights = keras.Variable(START)
        optimizer.build([weights])
        step = mode(lambda gradient: optimizer.apply([gradient], [weights]))
        for gradient in GRADIENTS:
            step(tf.constant(gradient, tf.float32))
        return weights.numpy()

    ours, theirs = optimizers.AdamW(0.01, weight_decay=0.1, ema=0.5), keras.optimizers.AdamW(0.01, weight_decay=0.1)
    np.testing.assert_array_equal(trained(ours), trained(theirs))


@pytest.mark.parametrize("ema", [0.75, 0.99])
def test_averages_are_means_of_all_steps_and_then_decay(ema, mode):
    weights = keras.Variable(START)
    optimizer = sgd(ema=ema)
    optimizer.build([weights])
    assert optimizers.averages_of(optimizer) == []
    step = mode(lambda gradient: optimizer.apply([gradient], [weights]))
    average, history = 0.0, rule(lambda w, step: GRADIENTS[step])
    for t, gradient in enumerate(GRADIENTS):
        step(tf.constant(gradient, tf.float32))
        decay = min(ema, t / (t + 1))
        average = decay * average + (1 - decay) * history[t]
        require_close(optimizers.averages_of(optimizer)[0], average)
    require_close(weights, history[-1])
    if ema == 0.99:
        require_close(average, history.mean(axis=0))


def test_keras_own_sgd_follows_another_rule_after_a_drop():
    weights = keras.Variable(START)
    optimizer = keras.optimizers.SGD(optimizers.StepSchedule(BASE, DROPS, WARMUP), momentum=MOMENTUM)
    for gradient in GRADIENTS:
        optimizer.apply([tf.constant(gradient, tf.float32)], [weights])
    expected = rule(lambda w, step: GRADIENTS[step], l2=0)[-1]
    assert np.abs(weights.numpy() - expected).max() > 0.05


def test_every_variable_has_its_own_velocity():
    variables = [keras.Variable(START), keras.Variable(START[0])]
    optimizer = sgd()
    for gradient in GRADIENTS:
        optimizer.apply([tf.constant(gradient, tf.float32), tf.constant(-gradient[0], tf.float32)], variables)
    require_close(variables[0], rule(lambda w, step: GRADIENTS[step])[-1])
    require_close(variables[1], rule(lambda w, step: -GRADIENTS[step][0], START[0])[-1])


@pytest.mark.slow
def test_model_fit_follows_the_rule():
    x, y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign(START)
    model.compile(sgd(), "mse")
    model.fit(x, y, batch_size=8, epochs=len(RATES), verbose=0)
    require_close(model.layers[0].kernel, rule(lambda w, step: x.T @ (x @ w - y) / 8)[-1])


def test_replicas_step_by_the_sum_of_their_gradients(monkeypatch):
    # Strategies of one process number their collective operations alike, and mix them up. This is TensorFlow's way out.
    monkeypatch.setattr(tf.distribute.MirroredStrategy, "_collective_key_base", 1_000_000)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        weights = keras.Variable(START)
        optimizer = sgd()
        optimizer.build([weights])

    @tf.function
    def step(gradient):
        def replica():
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            optimizer.apply([gradient * (1 + number)], [weights])

        strategy.run(replica)

    for gradient in GRADIENTS:
        step(tf.constant(gradient, tf.float32))
    for copy in strategy.experimental_local_results(weights.value):
        require_close(copy, rule(lambda w, step: 3 * GRADIENTS[step])[-1])


@pytest.mark.parametrize("learning_rate", [0.25, optimizers.StepSchedule(BASE, DROPS, WARMUP)])
def test_optimizer_is_the_same_after_a_round_trip_through_its_configuration(learning_rate):
    optimizer = sgd(learning_rate=learning_rate, name="paper")
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is optimizers.SGD
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.l2, again.name) == (MOMENTUM, L2, "paper")
    adam = optimizers.AdamW(learning_rate, weight_decay=0.1, ema=0.9)
    again_adam = keras.optimizers.deserialize(keras.optimizers.serialize(adam))
    assert (type(again_adam), again_adam.get_config()) == (optimizers.AdamW, adam.get_config())
    np.testing.assert_array_equal(again.learning_rate, optimizer.learning_rate)


class TestStepSchedule:
    def test_grows_from_zero_then_drops_by_ten(self):
        schedule = optimizers.StepSchedule(BASE, DROPS, WARMUP)
        np.testing.assert_allclose([schedule(step) for step in range(10)], RATES, rtol=1e-6)

    def test_is_constant_without_warm_up_and_drops(self):
        assert {float(optimizers.StepSchedule(0.5)(step)) for step in (0, 1, 10**9)} == {0.5}

    def test_tells_steps_apart_beyond_the_precision_of_float32(self):
        schedule = optimizers.StepSchedule(1.0, [2**24 + 1])
        np.testing.assert_allclose([schedule(2**24), schedule(2**24 + 1)], [1, 0.1], rtol=1e-6)

    def test_is_the_same_after_a_round_trip_through_its_configuration(self):
        schedule = optimizers.StepSchedule(BASE, DROPS, WARMUP)
        again = optimizers.StepSchedule.from_config(schedule.get_config())
        assert [float(again(step)) for step in range(10)] == [float(schedule(step)) for step in range(10)]


class TestOtherSchedules:
    @pytest.mark.parametrize("warmup", [0, 4])
    def test_cosine_falls_from_the_base_to_zero(self, warmup):
        schedule = optimizers.CosineSchedule(BASE, 12, warmup)
        falls = [BASE * (1 + np.cos(np.pi * t / (12 - warmup))) / 2 for t in range(12 - warmup + 1)]
        rises = [BASE * t / warmup for t in range(warmup)]
        np.testing.assert_allclose([schedule(t) for t in range(13)], rises + falls, rtol=1e-5, atol=1e-7)

    def test_one_cycle_rises_and_falls_linearly(self):
        schedule = optimizers.OneCycleSchedule(0.8, 12, 4)
        rates = [0, 0.2, 0.4, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0]
        np.testing.assert_allclose([schedule(t) for t in range(14)], rates, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize(
        "schedule",
        [
            optimizers.CosineSchedule(BASE, 12, 4),
            optimizers.OneCycleSchedule(BASE, 12, 4),
            optimizers.Later(optimizers.StepSchedule(BASE, DROPS, WARMUP), 3),
        ],
    )
    def test_is_the_same_after_a_round_trip_through_its_configuration(self, schedule):
        serialized = keras.optimizers.schedules.serialize(schedule)
        again = keras.optimizers.schedules.deserialize(serialized)
        assert [float(again(step)) for step in range(10)] == [float(schedule(step)) for step in range(10)]

    def test_later_begins_in_the_middle(self):
        later = optimizers.Later(optimizers.StepSchedule(BASE, DROPS, WARMUP), 4)
        np.testing.assert_allclose([later(step) for step in range(6)], RATES[4:], rtol=1e-6)
