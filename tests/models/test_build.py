import dataclasses
import random

import keras
import numpy as np
import pytest

from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers.batch_normalization import BatchNormalization
from tf_pruneinit.models import build as models
from tf_pruneinit.pruning import masks as masking

SHAPE = (16, 16, 3)


@dataclasses.dataclass
class Built:
    name: str
    model: keras.Model
    half: keras.Model


@pytest.fixture(scope="module", params=registry.MODELS)
def built(request):
    """Each network once, with seed 0, for images of 16x16x3; and in half precision."""
    model, half = (models.build(request.param, SHAPE, 10, 0, precision=one) for one in ("float32", "mixed_bfloat16"))
    return Built(request.param, model, half)


def kernel_initializers(model):
    """Each masked layer with its kernel and its fan-in."""
    for masked in masking.kernels(model).values():
        kernel = masked.variable.numpy()
        yield masked.layer, kernel, kernel[..., 0].size


class TestEveryModel:
    def test_the_same_seed_gives_the_same_weights_in_every_precision(self, built):
        for first, second in zip(built.model.variables, built.half.variables, strict=True):
            assert (first.path, first.dtype) == (second.path, second.dtype)
            np.testing.assert_array_equal(first, second)

    def test_no_two_layers_begin_alike(self, built):
        kernels = [kernel.variable.numpy().ravel()[:27] for kernel in masking.kernels(built.model).values()]
        scaled = np.array([kernel / np.abs(kernel).max() for kernel in kernels])
        assert len(np.unique(scaled.round(4), axis=0)) == len(kernels)

    def test_logits_are_float32(self, built):
        for model, computed in ((built.model, "float32"), (built.half, "bfloat16")):
            logits = model(np.ones((2, *SHAPE)))
            assert (logits.shape, logits.dtype) == ((2, 10), "float32")
            assert np.isfinite(logits).all()
            inner = next(iter(masking.kernels(model).values()))
            assert inner.layer.compute_dtype == computed

    def test_every_weight_of_rank_two_and_more_is_masked_with_ones(self, built):
        assert masking.exempt(built.model) == ()
        assert all(kernel.mask.numpy().all() for kernel in masking.kernels(built.model).values())

    def test_kernels_are_kaiming_normal_and_not_truncated(self, built):
        standardized = np.concatenate([(k / np.sqrt(2 / fan_in)).ravel() for _, k, fan_in in kernel_initializers(built.model)])
        error = 5 / np.sqrt(standardized.size)
        assert abs(standardized.mean()) < error
        assert abs(standardized.var() - 1) < error * np.sqrt(2)
        # Keras' he_normal has none beyond 2.3 deviations; a normal distribution 1.24 %.
        assert abs(np.mean(np.abs(standardized) > 2.5) - 0.0124) < error * 0.12
        for _, kernel, fan_in in kernel_initializers(built.model):
            assert abs(kernel.std() / np.sqrt(2 / fan_in) - 1) < 4 / np.sqrt(kernel.size)

    def test_dense_biases_are_uniform_within_their_bound_and_convolutions_have_none(self, built):
        for layer, _, fan_in in kernel_initializers(built.model):
            if isinstance(layer, keras.layers.Conv2D):
                assert not layer.use_bias
                continue
            scaled = layer.bias.numpy() * np.sqrt(fan_in)
            assert np.abs(scaled).max() <= 1
            assert scaled.min() < -0.5 < 0.5 < scaled.max()

    def test_batch_normalization_has_the_papers_constants(self, built):
        normalizations = [layer for layer in built.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert (not normalizations) == (built.name == "lenet_300_100")
        for layer in normalizations:
            assert type(layer) is BatchNormalization
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
            assert not layer.beta.numpy().any()
            assert not layer.moving_mean.numpy().any()
            assert (layer.moving_variance.numpy() == 1).all()
            gamma = np.sort(layer.gamma.numpy())
            assert np.abs(gamma - np.linspace(0, 1, gamma.size)).max() < 1.95 / np.sqrt(gamma.size)


@pytest.mark.parametrize("name", ["lenet_300_100", "convnet", "resnet20"])
def test_another_seed_gives_other_weights(name):
    one, other = (models.build(name, SHAPE, 10, seed) for seed in (0, 1))
    for first, second in zip(one.trainable_variables, other.trainable_variables, strict=True):
        if "beta" not in first.path:
            assert np.mean(first.numpy() == second.numpy()) < 0.01


def test_the_precision_is_that_of_this_model_alone_and_it_has_the_classes_asked_for():
    before = keras.config.dtype_policy().name
    model = models.build("convnet", SHAPE, 7, 0, precision="mixed_float16")
    assert keras.config.dtype_policy().name == before
    logits = model(np.ones((2, *SHAPE)))
    assert (logits.shape, logits.dtype) == ((2, 7), "float32")
    assert next(iter(masking.kernels(model).values())).layer.compute_dtype == "float16"


@pytest.mark.parametrize(
    ("name", "shape", "total"),
    [
        ("lenet_300_100", (28, 28, 1), 266_200),
        ("convnet", (28, 28, 1), 16 * 9 + 16 * 32 * 9 + 32 * 64 * 9 + 640),
        ("resnet20", (32, 32, 3), 270_896),
        ("vgg16", (32, 32, 3), 14_715_584),
        ("vgg11", (32, 32, 3), 9_222_848),
        ("vgg19", (32, 32, 3), 20_024_000),
        # Those of the PyTorch library's, without biases and normalization.
        ("resnet18", (64, 64, 3), 11_689_512 - 9_600 - 1_000 - 990 * 512),
        ("resnet18_modified", (64, 64, 3), 11_689_512 - 9_600 - 1_000 - 990 * 512 - (49 - 9) * 3 * 64),
        ("resnet50", (64, 64, 3), 25_557_032 - 53_120 - 1_000 - 990 * 2048),
        # All but the first kernel have twice the channels on both sides, the last on one.
        ("resnet20x2", (32, 32, 3), 4 * (270_896 - 27 * 16 - 640) + 2 * (27 * 16 + 640)),
        ("vgg11x2", (32, 32, 3), 4 * (9_222_848 - 27 * 64 - 5120) + 2 * (27 * 64 + 5120)),
    ],
)
def test_numbers_of_prunable_weights(name, shape, total):
    model = models.build(name, shape, 10, 0)
    assert sum(kernel.mask.shape.num_elements() for kernel in masking.kernels(model).values()) == total


@pytest.mark.parametrize(("name", "shape"), [("convnet", (3, 3, 1)), ("vgg16", (15, 32, 3))])
def test_images_that_are_too_small_are_refused(name, shape):
    before = keras.config.dtype_policy().name
    size = "x".join(map(str, shape))
    with pytest.raises(UsageError, match=f"^{name} cannot be built for images of {size}: ") as caught:
        models.build(name, shape, 10, 0, precision="mixed_float16")
    assert keras.config.dtype_policy().name == before
    assert "\n" not in str(caught.value)


def test_an_unknown_model_is_refused():
    with pytest.raises(UsageError, match=r"model must be one of lenet_300_100, .*; got 'alexnet'"):
        models.build("alexnet", SHAPE, 10, 0)


@pytest.mark.parametrize(
    "name, sizes",
    [
        (
            "resnet18",
            {"stem": 32, "stem_pool": 16, "stage1_block2_relu2": 16, "stage2_block1_relu2": 8, "stage4_block2_relu2": 2},
        ),
        ("resnet18_modified", {"stem": 64, "stage1_block2_relu2": 64, "stage2_block1_relu2": 32, "stage4_block2_relu2": 8}),
        (
            "resnet50",
            {"stem": 32, "stem_pool": 16, "stage1_block3_relu3": 16, "stage2_block1_relu1": 16, "stage4_block3_relu3": 2},
        ),
    ],
)
def test_where_large_residual_networks_halve_the_size(name, sizes):
    model = models.build(name, (64, 64, 3), 10, 0)
    for layer, size in sizes.items():
        assert model.get_layer(layer).output.shape[1:3] == (size, size), layer
    assert ("stem_pool" in sizes) == any(layer.name == "stem_pool" for layer in model.layers)


def test_the_pool_after_a_large_stem_is_of_three_by_three_with_one_pixel_around():
    model = models.build("resnet18", (16, 16, 3), 10, 0)
    outputs = [model.get_layer(name).output for name in ("stem_relu", "stem_pool")]
    before, after = keras.Model(model.input, outputs)(np.random.default_rng(0).normal(size=(1, 16, 16, 3)))
    padded = np.pad(before.numpy(), [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    expected = [[padded[:, i : i + 3, j : j + 3].max((1, 2)) for j in range(0, 8, 2)] for i in range(0, 8, 2)]
    np.testing.assert_array_equal(after, np.moveaxis(expected, 2, 0))


class TestKerasApplications:
    SHAPE = (32, 32, 3)
    SMALL = "keras:MobileNetV3Small"

    @pytest.fixture(scope="class")
    def built(self):
        before = random.getstate()
        model = models.build(self.SMALL, self.SHAPE, 10, 0)
        # Here, so that it is of the build itself and of nothing beside it.
        assert random.getstate() == before
        return model

    def test_gives_logits_and_no_probabilities(self, built):
        images = np.random.default_rng(0).normal(size=(4, *self.SHAPE)).astype("float32")
        logits = built(images, training=False).numpy()
        assert (logits.shape, logits.dtype) == ((4, 10), np.float32)
        assert logits.min() < 0
        assert np.abs(logits.sum(axis=1) - 1).min() > 1e-3

    def test_every_weight_of_rank_two_and_more_is_masked_with_ones(self, built):
        assert masking.exempt(built) == ()
        masks = masking.masks(built)
        assert len(masks) > 50
        assert all(mask.all() for mask in masks.values())

    def test_images_are_not_scaled_in_the_network(self, built):
        assert not [
            layer.name for layer in built.layers if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
        ]

    def test_the_same_seed_gives_the_same_weights_whatever_python_has_drawn(self, built):
        random.seed(12345)
        again = models.build(self.SMALL, self.SHAPE, 10, 0)
        assert len(again.variables) == len(built.variables)
        assert list(masking.kernels(again)) == list(masking.kernels(built))
        for first, second in zip(built.variables, again.variables, strict=True):
            np.testing.assert_array_equal(first, second)

    def test_the_same_seed_gives_the_same_weights_in_half_precision_and_float32_logits(self, built):
        half = models.build(self.SMALL, self.SHAPE, 10, 0, precision="mixed_bfloat16")
        for first, second in zip(built.trainable_variables, half.trainable_variables, strict=True):
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        assert half(np.ones((1, *self.SHAPE), "float32"), training=False).dtype == "float32"

    def test_another_seed_gives_other_weights(self, built):
        other = models.build(self.SMALL, self.SHAPE, 10, 1)
        for path, kernel in masking.kernels(other).items():
            assert np.mean(kernel.variable.numpy() == masking.kernels(built)[path].variable.numpy()) < 0.01

    def test_kernels_have_the_same_paths_when_it_is_built_again(self):
        """Random scores are drawn, and masks saved, by the path of a kernel. Not every layer of Xception has a name."""
        first, again = (list(masking.kernels(models.build("keras:Xception", (71, 71, 3), 10, 0))) for _ in range(2))
        assert first == again

    def test_pythons_random_state_is_left_as_it_was_when_the_build_fails(self):
        before = random.getstate()
        with pytest.raises(UsageError, match=r"^keras:ResNet50 cannot be built for images of 8x8x1: .*32x32") as caught:
            models.build("keras:ResNet50", (8, 8, 1), 10, 0)
        assert "\n" not in str(caught.value)
        assert random.getstate() == before

    @pytest.mark.parametrize("name", ["ConvNeXtTiny", "EfficientNetV2B0"])
    def test_other_networks_are_built_with_masks(self, name):
        model = models.build(f"keras:{name}", self.SHAPE, 10, 0)
        masks = masking.masks(model)
        assert model.output.shape == (None, 10)
        assert len(masks) > 20
        assert masking.exempt(model) == ()
        assert sum(mask.size for mask in masks.values()) > 0.9 * sum(
            weight.shape.num_elements() for weight in model.trainable_weights
        )
        assert model.layers[-1].get_config().get("activation") in (None, "linear")

    @pytest.mark.parametrize("name", ["ResNet5", "nonsense", "resnet50", "resnet", "preprocess_input"])
    def test_an_unknown_network_lists_those_that_there_are(self, name):
        rule = f"the model of keras.applications must be one of .*ConvNeXtTiny.*ResNet50.*VGG16.*; got '{name}'"
        with pytest.raises(UsageError, match=rule) as caught:
            models.build(f"keras:{name}", self.SHAPE, 10, 0)
        assert "\n" not in str(caught.value)

    def test_near_miss_is_answered_with_what_was_meant(self):
        with pytest.raises(UsageError, match=r"got 'ResNet5' \(did you mean ResNet50\?\)"):
            models.build("keras:ResNet5", self.SHAPE, 10, 0)


BLOCKS = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
PROJECTED = ("stage2_block1", "stage3_block1")


class TestResNet20:
    @pytest.fixture(scope="class")
    def plain(self):
        return models.build("resnet20", SHAPE, 10, 0)

    @pytest.fixture(scope="class")
    def values(self, plain):
        """What each layer gives for a few images; every block's second batch norm has scale 0, so that its shortcut is left."""
        model = models.build("resnet20", SHAPE, 10, 0)
        for block in BLOCKS:
            model.get_layer(f"{block}_conv2_bn").gamma.assign(0 * plain.get_layer(f"{block}_conv2_bn").gamma)
        outputs = {layer.name: layer.output for layer in model.layers}
        images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
        return model, {name: value.numpy() for name, value in keras.Model(model.input, outputs)(images).items()}

    def inputs(self, block):
        index = BLOCKS.index(block)
        return f"{BLOCKS[index - 1]}_relu2" if index else "stem_relu"

    @pytest.mark.parametrize("block", BLOCKS)
    def test_shortcuts_are_the_identity_or_a_projection_where_shapes_change(self, values, block):
        model, given = values
        x = given[self.inputs(block)]
        if block in PROJECTED:
            norm = model.get_layer(f"{block}_shortcut_bn")
            x = x[:, ::2, ::2] @ model.get_layer(f"{block}_shortcut").kernel.numpy()[0, 0] * (norm.gamma / np.sqrt(1 + 1e-5))
        assert np.count_nonzero(x > 0)
        np.testing.assert_allclose(given[f"{block}_relu2"], np.maximum(x, 0), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("block", PROJECTED)
    def test_convolutions_of_stride_two_pad_one_pixel_on_every_side(self, values, block):
        model, given = values
        x = np.pad(given[self.inputs(block)], [(0, 0), (1, 1), (1, 1), (0, 0)])
        kernel = model.get_layer(f"{block}_conv1").kernel.numpy()
        size = (x.shape[1] - 2) // 2
        windows = [x[:, i : i + 2 * size : 2, j : j + 2 * size : 2] @ kernel[i, j] for i in range(3) for j in range(3)]
        np.testing.assert_allclose(given[f"{block}_conv1"], sum(windows), rtol=1e-4, atol=1e-4)

    def test_the_branch_counts_where_its_scale_is_not_zero(self, values, plain):
        _, given = values
        images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
        assert np.abs(plain(images) - given["logits"]).max() > 1e-2


@pytest.mark.parametrize("name", ["convnet", "keras:MobileNetV2"], scope="class")
class TestInitialization:
    @pytest.fixture(scope="class")
    def own(self, name):
        return self.build(name)

    def build(self, name, seed=0, **options):
        return models.build(name, (32, 32, 3), 10, seed, **options)

    def others(self, model, *endings):
        return {variable.path: variable.numpy() for variable in model.variables if not variable.path.endswith(endings)}

    def test_normal_draws_all_kernels_with_one_deviation_and_nothing_else(self, name, own):
        deviation = 0.1
        model = self.build(name, kernel_deviation=deviation)
        kernels = [kernel.variable.numpy().ravel() for kernel in masking.kernels(model).values()]
        drawn = np.concatenate(kernels) / deviation
        assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
        assert abs(drawn.var() - 1) < 6 / np.sqrt(drawn.size)
        for kernel in kernels:
            assert abs(kernel.std() / deviation - 1) < 4 / np.sqrt(kernel.size)
        assert len({kernel[0] for kernel in kernels}) == len(kernels)
        found, expected = (self.others(one, "kernel") for one in (model, own))
        assert all((found[path] == expected[path]).all() for path in expected)

    def test_scales_are_ones_or_uniform_and_nothing_else_changes(self, name, own):
        own = self.others(own, "gamma")
        for how in ("ones", "uniform"):
            model = self.build(name, batch_norm_scale=how)
            scales = [variable.numpy() for variable in model.variables if variable.path.endswith("gamma")]
            found = np.concatenate(scales)
            assert (found == 1).all() if how == "ones" else 0 <= found.min() < 0.05 < 0.95 < found.max() <= 1
            assert how == "ones" or abs(found.mean() - 0.5) < 2 / np.sqrt(12 * found.size) * 2
            changed = self.others(model, "gamma")
            assert all((changed[path] == own[path]).all() for path in own)
        assert len({scale[0] for scale in scales}) == len(scales)


def test_a_normal_initialization_depends_on_the_seed_alone():
    first, again, other = (models.build("convnet", SHAPE, 10, seed, kernel_deviation=1.0) for seed in (0, 0, 1))
    for path, kernel in masking.kernels(first).items():
        np.testing.assert_array_equal(kernel.value, masking.kernels(again)[path].value)
        assert (kernel.value != masking.kernels(other)[path].value).all()
