import functools
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import twice_differentiable
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import selection

L = keras.layers
RNG = np.random.default_rng(0)
CLASSES = 4
DATA = RNG.normal(size=(12, 6, 6, 1)).astype("float32"), np.arange(12) % CLASSES
TOTAL = 3 * 3 * 3 + 48 * CLASSES
KERNELS = {"conv/kernel": (3, 3, 1, 3), "fc/kernel": (48, CLASSES)}

every_method = pytest.mark.parametrize("method", registry.METHODS)
# What pruning does with scores does not depend on whose they are: of no data, of data, of data with weights that regrow.
one_method_of_each_kind = pytest.mark.parametrize("method", ["magnitude", "snip", "force"])
# Each method with one scope, and one with all of them.
METHODS_AND_SCOPES = sorted(
    {(method, list(registry.SCOPES)[i % len(registry.SCOPES)]) for i, method in enumerate(registry.METHODS)}
    | set(itertools.product(["magnitude"], registry.SCOPES))
)
pytestmark = pytest.mark.filterwarnings("ignore:no weight remains")


def network():
    """Convolution, Keras' own batch normalisation, dense layer, with weights and statistics that are nothing special."""
    inputs = keras.Input((6, 6, 1), name="images")
    x = L.Conv2D(3, 3, name="conv")(inputs)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="bn")(x))
    return randomised(keras.Model(inputs, L.Dense(CLASSES, name="fc")(L.Flatten(name="flatten")(x))))


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


def snapshot(model):
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer else [])]
    return [variable.numpy() for variable in variables]


def require_equal(got, expected):
    assert list(got) == list(expected)
    for path, values in expected.items():
        assert got[path].dtype == values.dtype
        np.testing.assert_array_equal(got[path], values, err_msg=path)


def counts(model):
    return {path: int(mask.sum()) for path, mask in tf_pruneinit.masks(model).items()}


@pytest.mark.usefixtures("eagerly")
class TestScopes:
    @pytest.mark.parametrize(("method", "scope"), METHODS_AND_SCOPES)
    def test_prune_to_exactly_the_sparsity(self, method, scope, model):
        for sparsity in (0.0, 0.89, 0.999) if method == "magnitude" else (0.89,):
            pruned = tf_pruneinit.prune(model, method, sparsity, DATA, iterations=1, scope=scope)
            left = counts(pruned)
            assert sum(left.values()) == round((1 - sparsity) * TOTAL)
            if scope == "layerwise":
                for path, count in left.items():
                    assert abs(count - (1 - sparsity) * np.prod(KERNELS[path])) < 1

    @one_method_of_each_kind
    def test_erk_has_the_densities_of_its_formula(self, method, model):
        left = counts(tf_pruneinit.prune(model, method, 0.8, DATA, iterations=1, scope="erk"))
        # Proportional to the sums of sides, 3 + 3 + 1 + 3 and 48 + 4, until a layer is full: the convolution has 27.
        total = round(0.2 * TOTAL)
        assert left == pytest.approx({"conv/kernel": total * 10 / 62, "fc/kernel": total * 52 / 62}, abs=1)
        assert sum(left.values()) == total

    @pytest.mark.parametrize(
        ("method", "scope"),
        [*itertools.product(["magnitude", "force"], registry.SCOPES), ("random", "global"), ("phew", "erk")],
    )
    def test_iterations_take_the_schedule_and_regrow_only_where_the_row_says_so(self, method, scope, model, monkeypatch):
        regrows = registry.METHODS[method].regrows
        steps = [{path: np.ones(shape, "uint8") for path, shape in KERNELS.items()}]
        select = registry.SCOPES[scope]

        def record(scores, sparsity, within=None, **options):
            require_equal(dict(within), steps[0 if regrows else -1])
            steps.append(select(scores, sparsity, within, **options))
            for path, mask in within.items():
                if method != "random" and not regrows:  # What is removed scores as the zeros that it acts as.
                    assert not scores[path][mask == 0].any()
            return steps[-1]

        monkeypatch.setitem(registry.SCOPES, scope, record)
        pruned = tf_pruneinit.prune(model, method, 0.9, DATA, iterations=4, scope=scope)
        assert [sum(int(m.sum()) for m in step.values()) for step in steps] == [round(0.1 ** (n / 4) * TOTAL) for n in range(5)]
        for before, after in itertools.pairwise(steps):
            assert regrows or all((after[path] <= before[path]).all() for path in KERNELS)
        require_equal(tf_pruneinit.masks(pruned), steps[-1])


@pytest.mark.usefixtures("eagerly")
class TestEveryMethod:
    @every_method
    def test_one_shot_masks_keep_the_highest_scores_and_set_the_others_to_zero(self, method, model):
        pruned = tf_pruneinit.prune(model, method, 0.6, DATA, iterations=1)
        precision = "float64" if registry.METHODS[method].dtype == "float64" else "float32"
        scores = tf_pruneinit.score(model, method, DATA, precision=precision)
        require_equal(tf_pruneinit.masks(pruned), selection.global_masks(scores, 0.6))
        for path, kernel in masking.kernels(pruned).items():
            expected = model.get_layer(path.split("/")[0]).kernel
            np.testing.assert_array_equal(kernel.variable, np.where(kernel.mask.numpy() != 0, expected, 0))

    @pytest.mark.parametrize("method", ["random", "magnitude", "snip", "synflow", "force"])
    def test_scores_that_are_given_are_cut_as_its_own_are(self, method, model):
        scores = tf_pruneinit.score(model, method, DATA)
        ablations = ("none", "shuffle", "invert") if method == "snip" else ("none",)
        for ablation in ablations:
            options = {"iterations": 1, "ablation": ablation}
            own = tf_pruneinit.prune(model, method, 0.6, DATA, **options)
            given = tf_pruneinit.prune(model, method, 0.6, scores=scores, **options)
            require_equal(tf_pruneinit.masks(given), tf_pruneinit.masks(own))

    @pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow", "force", "phew"])
    def test_masks_that_are_there_are_kept(self, method, model):
        first = tf_pruneinit.prune(model, "random", 0.5, seed=5)
        second = tf_pruneinit.prune(first, method, 0.8, DATA, iterations=3 if method in ("snip", "force") else 1)
        assert sum(counts(second).values()) == round(0.2 * TOTAL)
        for path, mask in tf_pruneinit.masks(second).items():
            assert (mask <= tf_pruneinit.masks(first)[path]).all()
        with pytest.raises(UsageError, match="removed weights do not regrow"):
            tf_pruneinit.prune(first, method, 0.3, DATA, iterations=1)

    @pytest.mark.parametrize("method", ["random", "magnitude", "snip", "synflow", "force", "phew"])
    def test_excluded_layers_get_no_mask_and_are_not_counted(self, method, model):
        pruned = tf_pruneinit.prune(
            model, method, 0.75, DATA, exclude=["conv"], iterations=3 if method in ("snip", "force") else 1
        )
        assert counts(pruned) == {"fc/kernel": 48}
        assert type(pruned.get_layer("conv")) is L.Conv2D
        np.testing.assert_array_equal(pruned.get_layer("conv").kernel, model.get_layer("conv").kernel)

    @pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "prospr"])
    def test_precision_float64_keeps_the_highest_of_those_scores(self, method, model):
        pruned = tf_pruneinit.prune(model, method, 0.6, DATA, iterations=1, precision="float64")
        scores = tf_pruneinit.score(model, method, DATA, precision="float64")
        require_equal(tf_pruneinit.masks(pruned), selection.global_masks(scores, 0.6))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow", "prospr", "ntk_sap", "phew"])
def test_iterations_are_those_of_scoring_and_masking_by_hand(method, model):
    """Scores in float64 of the network with the masks found so far, ranked within them."""
    masked = tf_pruneinit.with_masks(model)
    for n in (1, 2, 3):
        scores = tf_pruneinit.score(masked, method, DATA, precision="float64")
        sparsity = 0.9 if n == 3 else 1 - 0.1 ** (n / 3)
        tf_pruneinit.set_masks(masked, selection.global_masks(scores, sparsity, tf_pruneinit.masks(masked)))
    pruned = tf_pruneinit.prune(model, method, 0.9, DATA, iterations=3, precision="float64")
    require_equal(tf_pruneinit.masks(pruned), tf_pruneinit.masks(masked))


@one_method_of_each_kind
@pytest.mark.usefixtures("eagerly")
class TestOneMethodOfEachKind:
    @pytest.mark.parametrize("iterations", [1, 4])
    def test_every_layer_keeps_min_remaining_of_its_best(self, method, model, iterations):
        pruned = tf_pruneinit.prune(model, method, 0.9, DATA, iterations=iterations, min_remaining=9)
        left = counts(pruned)
        assert sum(left.values()) == round(0.1 * TOTAL) == 22
        assert min(left.values()) >= 9
        if iterations == 1:
            scores = tf_pruneinit.score(model, method, DATA)
            for path, mask in tf_pruneinit.masks(pruned).items():
                assert scores[path][mask == 1].min() >= scores[path][mask == 0].max()
        with pytest.raises(UsageError, match=r"min_remaining=12 keeps 24 weights in 2 layers, more than the 22"):
            tf_pruneinit.prune(model, method, 0.9, DATA, iterations=1, min_remaining=12)

    def test_excluding_drops_a_mask_that_is_there(self, method, model):
        first = tf_pruneinit.prune(model, "random", 0.5)
        second = tf_pruneinit.prune(first, method, 0.75, DATA, exclude=["conv"], iterations=1)
        assert counts(second) == {"fc/kernel": 48}
        assert (tf_pruneinit.masks(second)["fc/kernel"] <= tf_pruneinit.masks(first)["fc/kernel"]).all()

    @pytest.mark.slow
    def test_a_compiled_model_stays_compiled(self, method):
        model = network()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.5), loss, metrics=["accuracy"])
        model.fit(*DATA, verbose=0)
        pruned = tf_pruneinit.prune(model, method, 0.5, DATA, iterations=1)
        assert pruned.compiled
        assert model.compiled
        assert pruned.optimizer is not model.optimizer
        assert pruned.optimizer.get_config() == model.optimizer.get_config()
        assert int(pruned.optimizer.iterations) == 0
        masks = tf_pruneinit.masks(pruned)
        pruned.fit(*DATA, epochs=2, verbose=0)
        require_equal(tf_pruneinit.masks(pruned), masks)
        for path, kernel in masking.kernels(pruned).items():
            assert not kernel.value[masks[path] == 0].any()
            assert kernel.value[masks[path] == 1].all()

    def test_a_model_that_is_not_compiled_stays_so(self, method, model):
        assert not tf_pruneinit.prune(model, method, 0.5, DATA, iterations=1).compiled


@pytest.mark.slow
class TestCompiled:
    @every_method
    def test_by_default_it_takes_its_own_iterations_and_leaves_the_model_as_it_is_bit_for_bit(self, method, request):
        own = {"synflow": 100, "ntk_sap": 100, "gem_miner": 100, "iterative_snip": 300, "force": 300}.get(method, 1)
        if own == 1:
            request.getfixturevalue("eagerly")
        model = network()
        model.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.optimizer.build(model.trainable_variables)
        before, seen = snapshot(model), []
        tf_pruneinit.prune(model, method, 0.5, DATA, on_iteration=lambda *progress: seen.append(progress))
        assert seen == [(n, own) for n in range(1, own + 1)]
        for old, new in zip(before, snapshot(model), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.parametrize("method", ["random", "grasp", "synflow", "force", "phew"])
    def test_the_same_call_gives_the_same_masks_also_eagerly(self, method, model):
        masks = [tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.8, DATA, iterations=2)) for _ in range(2)]
        tf.config.run_functions_eagerly(True)
        try:
            masks.append(tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.8, DATA, iterations=2)))
        finally:
            tf.config.run_functions_eagerly(False)
        for other in masks[1:]:
            require_equal(other, masks[0])


def test_scores_of_another_model_or_for_iterations_are_refused(model):
    scores = tf_pruneinit.score(model, "magnitude")
    with pytest.raises(UsageError, match="scores are for one iteration"):
        tf_pruneinit.prune(model, "magnitude", 0.5, scores=scores, iterations=2)
    for other in ({}, scores | {"fc/kernel": np.ones(3)}):
        with pytest.raises(UsageError, match="scores must be of the model's kernels, in order"):
            tf_pruneinit.prune(model, "magnitude", 0.5, scores=other)
    with pytest.raises(UsageError, match="finite"):
        tf_pruneinit.prune(model, "magnitude", 0.5, scores={path: layer * np.nan for path, layer in scores.items()})


def test_the_order_in_which_scores_are_given_does_not_break_ties(model):
    scores = {path: np.ones_like(layer) for path, layer in tf_pruneinit.score(model, "magnitude").items()}
    given = [scores, dict(reversed(scores.items()))]
    masks = [tf_pruneinit.masks(tf_pruneinit.prune(model, "magnitude", 0.5, scores=each)) for each in given]
    require_equal(*masks)


KINDS_OF_BATCHES = ["dataset", "generator", "tuple", "tensors", "iterator"]


@pytest.mark.usefixtures("eagerly")
class TestMethodsWithData:
    @pytest.fixture
    def batches(self):
        images, labels = DATA
        return [(images[:4], labels[:4]), (images[4:8], labels[4:8]), (images[8:], labels[8:])]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("method", "kind", "accumulate"),
        [
            *(("snip", kind, ("scores", "gradients")[n % 2]) for n, kind in enumerate(KINDS_OF_BATCHES)),
            ("force", "iterator", "scores"),
            ("prospr", "iterator", "gradients"),
        ],
    )
    def test_batches_come_in_any_iterable_and_are_read_in_every_iteration(self, method, model, batches, kind, accumulate):
        data = {
            "dataset": tf.data.Dataset.from_tensor_slices(DATA).batch(4),
            "generator": (batch for batch in batches),
            "tuple": tuple(batches),
            "tensors": [tuple(map(tf.constant, batch)) for batch in batches],
            "iterator": iter(tf.data.Dataset.from_tensor_slices(DATA).batch(4)),
        }[kind]
        options = {"iterations": 2, "accumulate": accumulate}
        require_equal(
            tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.9, data, **options)),
            tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.9, batches, **options)),
        )

    def test_a_generator_is_read_once(self, model, batches):
        read = []

        def generator():
            for batch in batches:
                read.append(1)
                yield batch

        tf_pruneinit.prune(model, "snip", 0.9, generator(), iterations=3)
        assert len(read) == len(batches)

    @pytest.mark.parametrize(
        ("method", "accumulate"),
        [("snip", "scores"), *((method, "gradients") for method in ("snip", "grasp", "prospr")), ("force", "scores")],
    )
    def test_batch_size_and_accumulate_are_those_of_score(self, method, model, accumulate):
        options = {"batch_size": 4, "accumulate": accumulate}
        pruned = tf_pruneinit.prune(model, method, 0.7, DATA, iterations=1, **options)
        scores = tf_pruneinit.score(model, method, DATA, **options)
        require_equal(tf_pruneinit.masks(pruned), selection.global_masks(scores, 0.7))


def test_a_model_compiled_with_a_loss_of_the_users_own_is_pruned():
    model = network()
    model.compile("sgd", lambda targets, outputs: tf.reduce_mean(tf.abs(targets - outputs)))
    pruned = tf_pruneinit.prune(model, "magnitude", 0.5)
    assert tf_pruneinit.summary(pruned).remaining == round(0.5 * TOTAL)
    assert pruned.loss is model.loss


def test_a_layer_left_without_weights_is_a_warning_that_names_it(model):
    model.get_layer("conv").kernel.assign(np.zeros(KERNELS["conv/kernel"]))
    with pytest.warns(UserWarning, match=r"^no path leads .* it is cut at conv/kernel: --scope=erk or --min_remaining=1"):
        tf_pruneinit.prune(model, "magnitude", 0.9)


def test_a_layer_that_is_kept_by_min_remaining_is_no_warning(model):
    model.get_layer("conv").kernel.assign(np.full(KERNELS["conv/kernel"], 1e-9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_pruneinit.prune(model, "magnitude", 0.9, min_remaining=1)


def test_each_layer_keeps_all_that_it_has_where_that_is_less_than_min_remaining(model):
    left = counts(tf_pruneinit.prune(model, "magnitude", 0.5, min_remaining=30))
    assert left["conv/kernel"] == 27
    assert sum(left.values()) == round(0.5 * TOTAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
        (
            {"scope": "local"},
            "scope must be one of global, layerwise, uniform, erk, uniform_plus, ideal_gas, balanced; got 'local'",
        ),
        ({"scope": None}, "scope must be one of global, layerwise, uniform, erk, uniform_plus, ideal_gas, balanced; got None"),
        ({"min_remaining": -1}, "min_remaining must be an integer >= 0; got -1"),
        ({"min_remaining": 1.5}, "min_remaining must be an integer >= 0; got 1.5"),
        ({"min_remaining": None}, "min_remaining must be an integer >= 0; got None"),
        ({"min_remaining": 1000}, "min_remaining=1000 keeps 219 weights in 2 layers, more than the 110"),
    ],
)
def test_options_out_of_range_are_one_clear_error(model, options, message):
    arguments = {"method": "grasp", "sparsity": 0.5, "data": DATA} | options
    with pytest.raises(UsageError, match=message) as caught:
        tf_pruneinit.prune(model, **arguments)
    assert "\n" not in str(caught.value)


def test_a_bad_sparsity_is_found_before_any_data_is_read(model):
    def unread():
        raise AssertionError("data was read")
        yield

    with pytest.raises(UsageError, match="sparsity"):
        tf_pruneinit.prune(model, "snip", 2.0, unread(), iterations=3)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_an_error_in_the_callback_comes_through_and_later_calls_are_right(model):
    expected = tf_pruneinit.masks(tf_pruneinit.prune(model, "snip", 0.9, DATA, iterations=3))

    def fail(n, total):
        if n == 2:
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        tf_pruneinit.prune(model, "snip", 0.9, DATA, iterations=3, on_iteration=fail)
    require_equal(tf_pruneinit.masks(tf_pruneinit.prune(model, "snip", 0.9, DATA, iterations=3)), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_pruning_in_the_callback_of_pruning_disturbs_nothing(model):
    expected = tf_pruneinit.masks(tf_pruneinit.prune(model, "snip", 0.9, DATA, iterations=3))
    inner = []

    def prune_again(n, total):
        inner.append(tf_pruneinit.masks(tf_pruneinit.prune(model, "snip", 0.9, DATA, iterations=3)))

    outer = tf_pruneinit.prune(model, "snip", 0.9, DATA, iterations=3, on_iteration=prune_again)
    for masks in (*inner, tf_pruneinit.masks(outer)):
        require_equal(masks, expected)


@pytest.mark.usefixtures("eagerly")
class TestEffectiveSparsity:
    """Of a network in which much of what is left has no path."""

    @pytest.fixture(scope="class")
    def wide(self):
        x = inputs = keras.Input((20,))
        for n, units in enumerate((60, 60, 60, CLASSES)):
            x = L.Dense(units, "relu" if units > CLASSES else None, name=f"fc{n}")(x)
        return randomised(keras.Model(inputs, x))

    DATA = RNG.normal(size=(24, 20)).astype("float32"), np.arange(24) % CLASSES

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("method", "sparsities"),
        [("random", [0.9]), ("magnitude", [0.9, 0.98]), ("snip", [0.98]), ("synflow", [0.98]), ("force", [0.98])],
    )
    def test_so_many_weights_are_connected_and_no_fewer_would_do(self, method, sparsities, wide):
        options = {"iterations": 3} if registry.METHODS[method].iterations > 1 else {}
        for sparsity in sparsities:
            pruned = tf_pruneinit.prune(wide, method, sparsity, self.DATA, target="effective", **options)
            summary = tf_pruneinit.summary(pruned)
            wanted = round((1 - sparsity) * summary.total)
            assert summary.connected >= wanted
            if summary.remaining > wanted:
                nominal = 1 - (summary.remaining - 1) / summary.total
                fewer = tf_pruneinit.summary(tf_pruneinit.prune(wide, method, nominal, self.DATA, **options))
                assert fewer.remaining == summary.remaining - 1
                assert fewer.connected < wanted

    @pytest.mark.slow
    def test_random_pruning_needs_many_more(self, wide):
        nominal, effective = (
            tf_pruneinit.summary(tf_pruneinit.prune(wide, "random", 0.98, target=target)) for target in ("nominal", "effective")
        )
        assert nominal.connected < 0.8 * nominal.remaining
        assert effective.effective_sparsity <= 0.98 < effective.effective_sparsity + 0.005
        assert effective.remaining > 1.1 * nominal.remaining

    @pytest.mark.slow
    @pytest.mark.parametrize("options", [{"scope": "erk"}, {"ablation": "invert"}, {"exclude": ["fc0"]}, {"min_remaining": 5}])
    def test_goes_with_other_options(self, wide, options):
        summary = tf_pruneinit.summary(tf_pruneinit.prune(wide, "magnitude", 0.95, target="effective", **options))
        assert summary.connected >= round(0.05 * summary.total)

    @pytest.mark.slow
    def test_scores_and_batches_that_are_read_once_serve_every_try(self, wide):
        images, labels = self.DATA
        batches = [(images[:12], labels[:12]), (images[12:], labels[12:])]
        given, once = (
            tf_pruneinit.prune(wide, "snip", 0.95, data, target="effective", iterations=2) for data in (batches, iter(batches))
        )
        require_equal(tf_pruneinit.masks(once), tf_pruneinit.masks(given))
        scores = tf_pruneinit.score(wide, "magnitude")
        cut = tf_pruneinit.prune(wide, "magnitude", 0.95, scores=scores, target="effective")
        own = tf_pruneinit.prune(wide, "magnitude", 0.95, target="effective")
        require_equal(tf_pruneinit.masks(cut), tf_pruneinit.masks(own))

    def test_masks_that_leave_too_few_paths_are_refused(self, wide):
        first = tf_pruneinit.prune(wide, "random", 0.9)
        few = round(0.11 * tf_pruneinit.summary(first).total)
        with pytest.raises(UsageError, match=rf"^an effective sparsity of 0.89 leaves {few} connected weights, more than the"):
            tf_pruneinit.prune(first, "magnitude", 0.89, target="effective")

    def test_other_targets_are_refused(self, wide):
        with pytest.raises(UsageError, match="target must be one of nominal, effective; got 'real'"):
            tf_pruneinit.prune(wide, "magnitude", 0.5, target="real")


# Architectures.


def transformer():
    inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(11, 6, name="words")(inputs)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3, name="attention")(x, x))
    x = L.LayerNormalization()(x + L.Dense(6, name="down")(L.Dense(8, "gelu", name="up")(x)))
    return keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x)))


def shared():
    inputs = keras.Input((6, 6, 2))
    conv = L.Conv2D(2, 3, name="conv", padding="same")
    x = L.Flatten()(L.Add()([conv(inputs), conv(L.ReLU()(conv(inputs)))]))
    return keras.Model(inputs, L.Dense(3, name="fc")(x))


def nested():
    inner_inputs = keras.Input((6, 6, 2))
    inner = keras.Model(inner_inputs, L.ReLU()(L.Conv2D(3, 3, name="conv")(inner_inputs)), name="inner")
    head = keras.Sequential([keras.Input((48,)), L.Dense(5, "relu", name="fc"), L.Dense(3, name="fc2")], name="head")
    inputs = keras.Input((6, 6, 2))
    return keras.Model(inputs, head(L.Flatten()(inner(inputs))))


def separable():
    inputs = keras.Input((8, 8, 2))
    x = L.BatchNormalization()(L.SeparableConv2D(4, 3, name="separable")(inputs))
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(L.ReLU()(x))
    return keras.Model(inputs, L.Dense(3, name="fc")(L.GlobalAveragePooling2D()(L.ReLU()(x))))


def one_dimensional():
    inputs = keras.Input((9, 2))
    x = L.MaxPooling1D()(L.Conv1D(4, 3, activation="relu", name="conv")(inputs))
    x = L.SeparableConv1D(4, 2, name="separable")(L.DepthwiseConv1D(2, name="depthwise")(x))
    return keras.Model(inputs, L.Dense(3, name="fc")(L.Flatten()(x)))


def three_dimensional():
    inputs = keras.Input((5, 5, 5, 1))
    x = L.BatchNormalization()(L.Conv3D(3, 2, name="conv")(inputs))
    x = L.Conv3DTranspose(2, 2, name="transposed")(L.ReLU()(x))
    return keras.Model(inputs, L.Dense(3, name="fc")(L.GlobalAveragePooling3D()(x)))


def pooled_volumes():
    inputs = keras.Input((6, 6, 6, 1))
    x = L.ReLU()(L.Conv3D(3, 3, name="conv")(inputs))
    x = L.AveragePooling3D(2)(L.MaxPooling3D(2, 1)(x))
    return keras.Model(inputs, L.Dense(3, name="fc")(L.Flatten()(x)))


def transposed():
    inputs = keras.Input((4, 4, 2))
    x = L.Conv2DTranspose(3, 3, strides=2, padding="same", name="up")(inputs)
    x = L.UpSampling2D()(L.ReLU()(x))
    x = L.Conv1DTranspose(2, 2, name="rows")(L.Reshape((16, 48))(x))
    return keras.Model(inputs, L.Dense(3, name="fc")(L.Flatten()(x)))


def over_time():
    inputs = keras.Input((4, 5, 2))
    x = L.TimeDistributed(L.Conv1D(3, 2, name="conv"), name="times")(inputs)
    x = L.EinsumDense("btsc,cd->btd", (4, 6), name="einsum")(x)
    x = L.GroupQueryAttention(3, 4, 2, name="attention")(x, x)
    return keras.Model(inputs, L.Dense(3, name="fc")(L.Flatten()(x)))


ATTENTION = dict.fromkeys([f"attention/{name}/kernel" for name in ("query", "key", "value", "attention_output")], 36)
GROUPED = {"query": 72, "key": 36, "value": 36, "attention_output": 72}
# Build -> the sizes of its kernels, in model order.
ARCHITECTURES = {
    transformer: ATTENTION | {"up/kernel": 48, "down/kernel": 48, "head/kernel": 18},
    shared: {"conv/kernel": 36, "fc/kernel": 216},
    nested: {"conv/kernel": 54, "head/fc/kernel": 240, "head/fc2/kernel": 15},
    separable: {"separable/depthwise_kernel": 18, "separable/pointwise_kernel": 8, "depthwise/kernel": 72, "fc/kernel": 24},
    one_dimensional: {"conv/kernel": 24, "depthwise/kernel": 8}
    | {"separable/depthwise_kernel": 8, "separable/pointwise_kernel": 16, "fc/kernel": 12},
    three_dimensional: {"conv/kernel": 24, "transposed/kernel": 48, "fc/kernel": 6},
    pooled_volumes: {"conv/kernel": 81, "fc/kernel": 9},
    transposed: {"up/kernel": 54, "rows/kernel": 192, "fc/kernel": 102},
    over_time: {"times/conv/kernel": 12, "einsum/kernel": 18}
    | {f"attention/{name}/kernel": size for name, size in GROUPED.items()}
    | {"fc/kernel": 72},
}


@functools.cache
def with_data(build):
    model = randomised(build())
    rng = np.random.default_rng(0)
    (tensor,) = model.inputs
    shape = (9, *tensor.shape[1:])
    images = rng.normal(size=shape).astype("float32") if tensor.dtype == "float32" else rng.integers(0, 11, shape)
    return model, (images, np.arange(9) % 3)


@pytest.fixture(params=ARCHITECTURES, ids=lambda build: build.__name__)
def architecture(request):
    return *with_data(request.param), ARCHITECTURES[request.param]


# Of what a method has no meaning for: it is refused in a line.
REFUSED = {("synflow", transformer), ("ntk_sap", transformer), ("phew", transformer), ("phew", over_time)}
# Steps of these untamed networks diverge at the rate that is meant for initialized ones.
OPTIONS: dict[str, dict[str, float]] = {"prospr": {"inner_rate": 0.01}}


# Scores of the others are of the same functions of the network: they need one architecture to show that they are.
DISTINCT = ["magnitude", "snip", "grasp", "synflow", "prospr", "ntk_sap", "phew"]


@pytest.mark.usefixtures("eagerly")
class TestArchitectures:
    @pytest.mark.parametrize("method", DISTINCT)
    def test_have_finite_scores_of_every_kernel_that_are_cut_to_exact_counts(self, method, architecture, request):
        model, data, sizes = architecture
        build = request.node.callspec.params["architecture"]
        if (method, build) in REFUSED:
            with pytest.raises(UsageError, match=rf"^{method} (needs|walks|does not know)") as caught:
                tf_pruneinit.score(model, method, data)
            assert "\n" not in str(caught.value)
            return
        scores = tf_pruneinit.score(model, method, data, **OPTIONS.get(method, {}))
        self.require_exact_counts(scores, sizes)

    @pytest.mark.parametrize("method", [name for name in registry.METHODS if name not in DISTINCT])
    def test_have_finite_scores_by_the_other_methods(self, method):
        model, data = with_data(nested)
        self.require_exact_counts(tf_pruneinit.score(model, method, data), ARCHITECTURES[nested])

    def require_exact_counts(self, scores, sizes):
        assert {path: z.size for path, z in scores.items()} == sizes
        assert all(np.isfinite(z).all() for z in scores.values())
        for scope in ("global", "layerwise", "erk"):
            masks = registry.SCOPES[scope](scores, 0.7)
            assert {path: mask.size for path, mask in masks.items()} == sizes
            assert sum(int(mask.sum()) for mask in masks.values()) == round(0.3 * sum(sizes.values()))

    def test_are_pruned_in_iterations_to_exact_counts_and_compute(self, architecture, request):
        model, data, sizes = architecture
        build = request.node.callspec.params["architecture"]
        method = ("grasp", "force", "synflow")[list(ARCHITECTURES).index(build) % 3]
        pruned = tf_pruneinit.prune(model, method, 0.7, data, iterations=2)
        masks = tf_pruneinit.masks(pruned)
        assert {path: mask.size for path, mask in masks.items()} == sizes
        assert sum(counts(pruned).values()) == round(0.3 * sum(sizes.values()))
        assert np.isfinite(pruned(data[0])).all()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_mobilenet_is_pruned_to_exact_counts():
    mobilenet = keras.applications.MobileNetV3Small(
        (32, 32, 3), alpha=0.5, weights=None, classes=10, include_preprocessing=False
    )
    assert not twice_differentiable.unverified(mobilenet)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4, 32, 32, 3)).astype("float32"), np.arange(4)
    pruned = tf_pruneinit.prune(mobilenet, "snip", 0.8, data)
    masks = tf_pruneinit.masks(pruned)
    total = sum(mask.size for mask in masks.values())
    four = sum(np.prod(weight.shape) for weight in mobilenet.trainable_weights if len(weight.shape) == 4)
    assert total == four
    assert sum(counts(pruned).values()) == round(0.2 * total)
    assert np.isfinite(pruned(data[0])).all()
