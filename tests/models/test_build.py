import dataclasses
import inspect
import math
import pathlib
import random
import re

import keras
import numpy as np
import pytest

from tf_pruneinit.compaction import compact_model
from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers.batch_normalization import BatchNormalization
from tf_pruneinit.models import build as models
from tf_pruneinit.models import vit
from tf_pruneinit.pruning import masks as masking

L = keras.layers
SHAPE = (32, 32, 3)
PAGE = pathlib.Path(__file__).parents[2] / "docs/networks.md"
# Those of the PyTorch library's, without biases and normalization.
RESNET18 = 11_689_512 - 9_600 - 1_000 - 990 * 512
# Network -> how many weights can be pruned, for ten classes. A family has one network here, deeper ones are below.
PRUNABLE = {
    "lenet_300_100": 32 * 32 * 3 * 300 + 300 * 100 + 1_000,
    "lenet5": 6 * 75 + 16 * 150 + 16 * 6 * 6 * 120 + 120 * 84 + 840,
    "lenet5_caffe": 20 * 75 + 50 * 500 + 50 * 5 * 5 * 500 + 5_000,
    "convnet": 16 * 27 + 16 * 32 * 9 + 32 * 64 * 9 + 640,
    # A stem, two blocks a stage of two 3x3 convolutions, two shortcuts, a dense layer.
    "wide_resnet16": 432 + 9 * (4 * 16**2 + 16 * 32 + 3 * 32**2 + 32 * 64 + 3 * 64**2) + 16 * 32 + 32 * 64 + 640,
    "resnet20": 270_896,
    "vgg16": 14_715_584,
    "vgg11": 9_222_848,
    "vgg19": 20_024_000,
    "resnet18": RESNET18,
    "resnet18_modified": RESNET18 - (49 - 9) * 3 * 64,
    "resnet50": 25_557_032 - 53_120 - 1_000 - 990 * 2048,
}
# Network, shape of images, classes -> trainable parameters as published. ResNets of chenyaofo's pytorch-cifar-models, which
# have projection shortcuts too; wide ones of the paper's authors (11.0 and 36.5 million); LeNet-5 of LeCun et al. and of Caffe;
# DeiT-Tiny, but for the class token, its position and the bias of patches, of 192 numbers each.
PUBLISHED = {
    ("resnet20", SHAPE, 10): 272_474,
    ("resnet56", SHAPE, 10): 855_770,
    ("wide_resnet16x8", SHAPE, 10): 10_961_370,
    ("wide_resnet28x10", SHAPE, 10): 36_479_194,
    ("lenet5", (28, 28, 1), 10): 61_706,
    ("lenet5_caffe", (28, 28, 1), 10): 431_080,
    ("vit_tiny", (224, 224, 3), 1000): 5_717_416 - 3 * 192,
}
# Network -> heights and widths of what layers give.
SIZES = {
    "resnet18": {"stem": 16, "stem_pool": 8, "stage1_block2_relu2": 8, "stage2_block1_relu2": 4, "stage4_block2_relu2": 1},
    "resnet18_modified": {"stem": 32, "stage1_block2_relu2": 32, "stage2_block1_relu2": 16, "stage4_block2_relu2": 4},
    "resnet50": {"stem": 16, "stem_pool": 8, "stage1_block3_relu3": 8, "stage2_block1_relu1": 8, "stage4_block3_relu3": 1},
}

# Network -> shape of what its head averages, or flattens, of images of 32x32.
BEFORE_THE_HEAD = {
    "lenet_300_100": SHAPE,
    "lenet5": (6, 6, 16),
    "lenet5_caffe": (5, 5, 50),
    "convnet": (8, 8, 64),
    "wide_resnet16": (8, 8, 64),
    "resnet20": (8, 8, 64),
    "vgg16": (2, 2, 512),
    "vgg11": (2, 2, 512),
    "vgg19": (2, 2, 512),
    "resnet18": (1, 1, 512),
    "resnet18_modified": (4, 4, 512),
    "resnet50": (1, 1, 2048),
}


@dataclasses.dataclass
class Built:
    name: str
    model: keras.Model
    kernels: list  # Of each masked layer, with the layer and its fan-in.


@pytest.fixture(scope="module", params=PRUNABLE)
def built(request):
    """Each network once, with seed 0, for images of 32x32x3."""
    model = models.build(request.param, SHAPE, 10, 0)
    kernels = [(masked.layer, masked.variable.numpy()) for masked in masking.kernels(model).values()]
    return Built(request.param, model, [(layer, kernel, kernel[..., 0].size) for layer, kernel in kernels])


def require_float32_logits(model, computed):
    logits = model(np.ones((2, *SHAPE)))
    assert (logits.shape, logits.dtype) == ((2, 10), "float32")
    assert np.isfinite(logits).all()
    inner = next(iter(masking.kernels(model).values()))
    assert inner.layer.compute_dtype == computed


def rows_of_the_page():
    rows = re.findall(r"^\| `(\w[\w.]*)` \| ([\dx]+), (\d+) \| ([\d,]+) \| ([\d,]+) \|", PAGE.read_text(), re.MULTILINE)
    return [(name, tuple(map(int, shape.split("x"))), int(classes), *numbers) for name, shape, classes, *numbers in rows]


def test_the_page_has_every_network():
    listed = {row[0] for row in rows_of_the_page()}
    assert not [name for name in registry.MODELS if not any(one == name or one.startswith(f"{name}x") for one in listed)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "classes", "prunable", "trainable"), rows_of_the_page())
def test_the_page_says_how_many_weights_networks_have(name, shape, classes, prunable, trainable):
    model = models.build(name, shape, classes, 0)
    assert f"{sum(mask.size for mask in masking.masks(model).values()):,}" == prunable
    assert f"{sum(math.prod(variable.shape) for variable in model.trainable_variables):,}" == trainable


class TestEveryModel:
    def test_no_two_layers_begin_alike(self, built):
        kernels = [kernel.ravel()[:27] for _, kernel, _ in built.kernels]
        scaled = np.array([kernel / np.abs(kernel).max() for kernel in kernels])
        assert len(np.unique(scaled.round(4), axis=0)) == len(kernels)

    def test_logits_are_float32(self, built):
        require_float32_logits(built.model, "float32")

    def test_has_as_many_prunable_weights_as_published(self, built):
        assert sum(mask.size for mask in masking.masks(built.model).values()) == PRUNABLE[built.name]

    def test_its_head_is_given_images_of_the_usual_size(self, built):
        heads = [layer for layer in built.model.layers if isinstance(layer, (L.GlobalAveragePooling2D, L.Flatten))]
        assert [layer.input.shape[1:] for layer in heads] == [BEFORE_THE_HEAD[built.name]]

    def test_every_weight_of_rank_two_and_more_is_masked_with_ones(self, built):
        assert masking.exempt(built.model) == ()
        assert all(kernel.mask.numpy().all() for kernel in masking.kernels(built.model).values())

    def test_kernels_are_kaiming_normal_and_not_truncated(self, built):
        standardized = np.concatenate([(k * math.sqrt(fan_in / 2)).ravel() for _, k, fan_in in built.kernels])
        error = 5 / np.sqrt(standardized.size)
        assert abs(standardized.mean()) < error
        assert abs(standardized.var() - 1) < error * np.sqrt(2)
        # Keras' he_normal has none beyond 2.3 deviations; a normal distribution 1.24 %.
        assert abs(np.mean(np.abs(standardized) > 2.5) - 0.0124) < error * 0.12
        for _, kernel, fan_in in built.kernels:
            assert abs(kernel.std() / np.sqrt(2 / fan_in) - 1) < 4 / np.sqrt(kernel.size)

    def test_dense_biases_are_uniform_within_their_bound_and_convolutions_have_none(self, built):
        for layer, _, fan_in in built.kernels:
            if isinstance(layer, keras.layers.Conv2D) and not built.name.startswith("lenet5"):
                assert not layer.use_bias
                continue
            scaled = layer.bias.numpy() * np.sqrt(fan_in)
            assert np.abs(scaled).max() <= 1
            assert scaled.min() < -0.25 < 0.25 < scaled.max()

    def test_batch_normalization_has_the_papers_constants(self, built):
        normalizations = [layer for layer in built.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert (not normalizations) == built.name.startswith("lenet")
        for layer in normalizations:
            assert type(layer) is BatchNormalization
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
            assert not layer.beta.numpy().any()
            assert not layer.moving_mean.numpy().any()
            assert (layer.moving_variance.numpy() == 1).all()
            gamma = np.sort(layer.gamma.numpy())
            assert np.abs(gamma - np.linspace(0, 1, gamma.size)).max() < 1.95 / np.sqrt(gamma.size)

    def test_large_residual_networks_halve_the_size_and_pool_where_they_should(self, built):
        sizes = SIZES.get(built.name, {})
        for layer, size in sizes.items():
            assert built.model.get_layer(layer).output.shape[1:3] == (size, size), layer
        assert ("stem_pool" in sizes) == any(layer.name == "stem_pool" for layer in built.model.layers)
        if "stem_pool" in sizes:
            require_pool_of_three_by_three_with_one_pixel_around(built.model)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "classes"), PUBLISHED)
def test_has_as_many_parameters_as_published(name, shape, classes):
    model = models.build(name, shape, classes, 0)
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == PUBLISHED[name, shape, classes]


@pytest.mark.usefixtures("eagerly")
class TestVisionTransformer:
    @pytest.fixture(scope="class")
    def model(self):
        return models.build("vit_tiny", (8, 8, 3), 10, 0)

    def test_every_kernel_is_masked_and_begins_with_weights_of_its_own(self, model):
        assert masking.exempt(model) == ()
        kernels = {path: kernel.variable.numpy() for path, kernel in masking.kernels(model).items()}
        assert len(kernels) == 2 + 12 * 6
        starts = np.array([(kernel / kernel.std()).ravel()[:48] for kernel in kernels.values()])
        assert len(np.unique(starts.round(4), axis=0)) == len(kernels)
        for path, kernel in kernels.items():
            fan_in = kernel[..., 0].size if path.endswith("output/kernel") else kernel.shape[0]
            assert abs(kernel.std() * np.sqrt(fan_in) - 1) < 4 / np.sqrt(kernel.size), path

    @pytest.fixture
    def shallow(self, monkeypatch):
        """The same with two of the twelve blocks, which are alike."""
        monkeypatch.setattr(vit, "_BLOCKS", 2)
        return models.build("vit_tiny", (8, 8, 3), 10, 0)

    @pytest.mark.slow
    def test_is_the_same_of_the_same_seed_and_depends_on_where_a_patch_is(self, shallow):
        model, images = shallow, np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
        again = models.build("vit_tiny", (8, 8, 3), 10, 0)
        np.testing.assert_array_equal(model(images), again(images))
        moved = np.roll(images, 4, axis=2)
        assert np.abs(model(images) - model(moved)).max() > 1e-3
        model.get_layer("embedding").bias.assign(np.zeros((4, 192)))
        np.testing.assert_allclose(model(images), model(moved), atol=1e-4)

    @pytest.mark.slow
    def test_paths_are_known_and_hidden_neurons_can_go(self, shallow):
        pruned, masks = shallow, {path: mask.copy() for path, mask in masking.masks(shallow).items()}
        masks["block1_fc1/kernel"][:, :300] = 0
        masks["block1_fc2/kernel"][:300] = 0
        masking.set_masks(pruned, masks)
        summary = masking.summary(pruned)
        assert summary.effective_sparsity == summary.sparsity > 0
        small = compact_model.compact(pruned).model
        assert small.get_layer("block1_fc1").units == 768 - 288  # In sixteens.
        images = np.ones((1, 8, 8, 3), "float32")
        np.testing.assert_allclose(small(images), pruned(images), atol=1e-5)

    def test_images_that_patches_do_not_tile_are_refused(self):
        rule = r"^vit_tiny cannot be built for images of 30x32x3: its patches have 4x4 pixels"
        with pytest.raises(UsageError, match=rule):
            models.build("vit_tiny", (30, 32, 3), 10, 0)


def require_pool_of_three_by_three_with_one_pixel_around(model):
    outputs = [model.get_layer(name).output for name in ("stem_relu", "stem_pool")]
    before, after = keras.Model(model.input, outputs)(np.random.default_rng(0).normal(size=(1, *SHAPE)))
    padded = np.pad(before.numpy(), [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    expected = [[padded[:, i : i + 3, j : j + 3].max((1, 2)) for j in range(0, 16, 2)] for i in range(0, 16, 2)]
    np.testing.assert_array_equal(after, np.moveaxis(expected, 2, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet_300_100", "convnet", "resnet20"])
def test_seeds_give_the_same_weights_in_every_precision_and_others_give_others(name):
    one, half, other = (
        models.build(name, SHAPE, 10, seed, precision=precision)
        for seed, precision in ((0, "float32"), (0, "mixed_bfloat16"), (1, "float32"))
    )
    for first, second in zip(one.variables, half.variables, strict=True):
        assert (first.path, first.dtype) == (second.path, second.dtype)
        np.testing.assert_array_equal(first, second)
    require_float32_logits(half, "bfloat16")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "total"),
    [
        ("lenet_300_100", (28, 28, 1), 266_200),
        ("convnet", (28, 28, 1), 16 * 9 + 16 * 32 * 9 + 32 * 64 * 9 + 640),
        # All but the first kernel have twice the channels on both sides, the last on one.
        ("resnet20x2", SHAPE, 4 * (270_896 - 27 * 16 - 640) + 2 * (27 * 16 + 640)),
        ("resnet20x0.5", SHAPE, (270_896 - 27 * 16 - 640) // 4 + (27 * 16 + 640) // 2),
        ("vgg11x0.5", SHAPE, (9_222_848 - 27 * 64 - 5120) // 4 + (27 * 64 + 5120) // 2),
    ],
)
def test_prunable_weights_of_other_widths_and_images(name, shape, total):
    model = models.build(name, shape, 10, 0)
    assert sum(mask.size for mask in masking.masks(model).values()) == total


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


def _tiny(weights, input_shape, classes, classifier_activation, include_preprocessing):
    """A network as those of keras.applications are; some of its layers have no name of their own."""
    assert weights is None
    inputs = keras.Input(input_shape)
    x = L.Rescaling(1 / 255)(inputs) if include_preprocessing else inputs
    for _ in range(2):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(64, 3, use_bias=False)(x)))
        x = L.BatchNormalization(scale=False)(L.DepthwiseConv2D(3)(x))
    x = L.Dense(32, "relu", name="hidden")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, L.Dense(classes, classifier_activation, name="predictions")(x), name="tiny")


@pytest.fixture
def tiny(monkeypatch):
    """Makes `keras:Tiny` the name of a small network."""
    monkeypatch.setattr(keras.applications, "Tiny", _tiny, raising=False)


class TestKerasApplications:
    SMALL = "keras:MobileNetV3Small"

    @pytest.fixture(scope="class")
    def built(self):
        before = random.getstate()
        model = models.build(self.SMALL, SHAPE, 10, 0)
        # Here, so that it is of the build itself and of nothing beside it.
        assert random.getstate() == before
        return model

    def test_gives_logits_and_no_probabilities(self, built):
        images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32")
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
        assert not [layer.name for layer in built.layers if isinstance(layer, (L.Rescaling, L.Normalization))]

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_weights_in_half_precision_whatever_python_has_drawn(self, tiny):
        one = models.build("keras:Tiny", SHAPE, 10, 0)
        random.seed(12345)
        half = models.build("keras:Tiny", SHAPE, 10, 0, precision="mixed_bfloat16")
        for first, second in zip(one.variables, half.variables, strict=True):
            assert (first.path, first.dtype) == (second.path, second.dtype)
            np.testing.assert_array_equal(first, second)
        require_float32_logits(half, "bfloat16")

    @pytest.mark.slow
    def test_another_seed_gives_other_weights(self, tiny):
        one, other = (masking.kernels(models.build("keras:Tiny", SHAPE, 10, seed)) for seed in (0, 1))
        for path, kernel in one.items():
            assert np.mean(kernel.variable.numpy() == other[path].variable.numpy()) < 0.01

    def test_kernels_have_paths_that_do_not_depend_on_what_was_built_before(self, tiny):
        """Random scores are drawn, and masks saved, by the path of a kernel. Not every layer of Keras' networks has a name."""
        for _ in range(2):
            found = [*masking.kernels(models.build("keras:Tiny", SHAPE, 10, 0))]
            kinds = ("conv2d", "depthwise_conv2d", "conv2d_1", "depthwise_conv2d_1", "hidden", "predictions")
            assert found == [f"{kind}/kernel" for kind in kinds]

    def test_pythons_random_state_is_left_as_it_was_when_the_build_fails(self):
        before = random.getstate()
        with pytest.raises(UsageError, match=r"^keras:ResNet50 cannot be built for images of 8x8x1: .*32x32") as caught:
            models.build("keras:ResNet50", (8, 8, 1), 10, 0)
        assert "\n" not in str(caught.value)
        assert random.getstate() == before

    @pytest.mark.slow
    def test_a_network_with_layers_of_its_own_is_built_with_masks(self, monkeypatch):
        # The network with a third of its blocks, and a tenth of its channels.
        sizes = inspect.getmodule(keras.applications.ConvNeXtTiny).MODEL_CONFIGS
        monkeypatch.setitem(sizes, "tiny", sizes["tiny"] | {"depths": [1, 1, 2, 2], "projection_dims": [8, 16, 32, 64]})
        model = models.build("keras:ConvNeXtTiny", SHAPE, 10, 0)
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
            models.build(f"keras:{name}", SHAPE, 10, 0)
        assert "\n" not in str(caught.value)

    def test_near_miss_is_answered_with_what_was_meant(self):
        with pytest.raises(UsageError, match=r"got 'ResNet5' \(did you mean ResNet50\?\)"):
            models.build("keras:ResNet5", SHAPE, 10, 0)


BLOCKS = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
PROJECTED = ("stage2_block1", "stage3_block1")


class TestResNet20:
    @pytest.fixture(scope="class")
    def values(self):
        """What each layer gives for a few images; every block's second batch norm has scale 0, so that its shortcut is left.

        And the logits of the network as it is built.
        """
        model = models.build("resnet20", SHAPE, 10, 0)
        images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
        logits = model(images).numpy()
        for block in BLOCKS:
            gamma = model.get_layer(f"{block}_conv2_bn").gamma
            gamma.assign(0 * gamma)
        outputs = {layer.name: layer.output for layer in model.layers}
        return model, {name: value.numpy() for name, value in keras.Model(model.input, outputs)(images).items()}, logits

    def inputs(self, block):
        index = BLOCKS.index(block)
        return f"{BLOCKS[index - 1]}_relu2" if index else "stem_relu"

    @pytest.mark.parametrize("block", BLOCKS)
    def test_shortcuts_are_the_identity_or_a_projection_where_shapes_change(self, values, block):
        model, given, _ = values
        x = given[self.inputs(block)]
        if block in PROJECTED:
            norm = model.get_layer(f"{block}_shortcut_bn")
            x = x[:, ::2, ::2] @ model.get_layer(f"{block}_shortcut").kernel.numpy()[0, 0] * (norm.gamma / np.sqrt(1 + 1e-5))
        assert np.count_nonzero(x > 0)
        np.testing.assert_allclose(given[f"{block}_relu2"], np.maximum(x, 0), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("block", PROJECTED)
    def test_convolutions_of_stride_two_pad_one_pixel_on_every_side(self, values, block):
        model, given, _ = values
        x = np.pad(given[self.inputs(block)], [(0, 0), (1, 1), (1, 1), (0, 0)])
        kernel = model.get_layer(f"{block}_conv1").kernel.numpy()
        size = (x.shape[1] - 2) // 2
        windows = [x[:, i : i + 2 * size : 2, j : j + 2 * size : 2] @ kernel[i, j] for i in range(3) for j in range(3)]
        np.testing.assert_allclose(given[f"{block}_conv1"], sum(windows), rtol=1e-4, atol=1e-4)

    def test_the_branch_counts_where_its_scale_is_not_zero(self, values):
        _, given, logits = values
        assert np.abs(logits - given["logits"]).max() > 1e-2


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["convnet", "keras:Tiny"])
class TestInitialization:
    @pytest.fixture
    def own(self, name, tiny):
        return self.build(name)

    def build(self, name, **options):
        return models.build(name, SHAPE, 10, 0, **options)

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
