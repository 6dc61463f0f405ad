"""Builds residual networks: ResNet-20, 32, 44, 56 and 110 for small images, ResNet-18 and ResNet-50.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with projection shortcuts. In ResNet-50 the
3x3 convolution has the stride, as in Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
"""

from collections.abc import Callable, Sequence

import keras

from tf_pruneinit.models.blocks import Blocks


def resnet20(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-20: a 3x3 stem, three stages of three blocks with 16, 32 and 64 channels, a global average, one dense
    layer. 270,896 prunable weights on 32x32x3 with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _small_resnet(20, input_shape, classes, seed, width)


def resnet32(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-32: ResNet-20 with five blocks in each stage. 464,432 prunable weights on three channels with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _small_resnet(32, input_shape, classes, seed, width)


def resnet44(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-44: ResNet-20 with seven blocks in each stage. 657,968 prunable weights on three channels with ten
    classes.

    Args: see `tf_pruneinit.models`.
    """
    return _small_resnet(44, input_shape, classes, seed, width)


def resnet56(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-56: ResNet-20 with nine blocks in each stage. 851,504 prunable weights on three channels with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _small_resnet(56, input_shape, classes, seed, width)


def resnet110(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-110: ResNet-20 with eighteen blocks in each stage. 1,722,416 prunable weights on three channels with ten
    classes.

    Args: see `tf_pruneinit.models`.
    """
    return _small_resnet(110, input_shape, classes, seed, width)


def resnet18(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-18: a 7x7 stem of stride 2 and a 3x3 max-pool of stride 2, four stages of two blocks with 64, 128, 256 and
    512 channels, a global average, one dense layer. 11,269,312 prunable weights on three channels with 200 classes.

    Args: see `tf_pruneinit.models`.
    """
    return _resnet("resnet18", _large_stem, _block, (2, 2, 2, 2), round(64 * width), input_shape, classes, Blocks(seed))


def resnet18_modified(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-18 for small images: its stem is a 3x3 convolution of stride 1, and there is no max-pool. 11,261,632
    prunable weights on three channels with 200 classes.

    Args: see `tf_pruneinit.models`.
    """
    return _resnet(
        "resnet18_modified", _small_stem, _block, (2, 2, 2, 2), round(64 * width), input_shape, classes, Blocks(seed)
    )


def resnet50(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ResNet-50: ResNet-18's stem, four stages of 3, 4, 6 and 3 bottleneck blocks that end in 256, 512, 1024 and 2048
    channels, a global average, one dense layer. 25,502,912 prunable weights on three channels with 1,000 classes.

    Args: see `tf_pruneinit.models`.
    """
    return _resnet("resnet50", _large_stem, _bottleneck, (3, 4, 6, 3), round(64 * width), input_shape, classes, Blocks(seed))


def _small_resnet(layers: int, input_shape: tuple[int, ...], classes: int, seed: int, width: float) -> keras.Model:
    """Returns the network of so many layers, 6 n + 2, with n blocks in each of three stages."""
    stages = ((layers - 2) // 6,) * 3
    return _resnet(f"resnet{layers}", _small_stem, _block, stages, round(16 * width), input_shape, classes, Blocks(seed))


def _resnet(
    name: str,
    stem: Callable,
    block: Callable,
    blocks_of_stages: Sequence[int],
    filters: int,
    input_shape: tuple[int, ...],
    classes: int,
    blocks: Blocks,
) -> keras.Model:
    """Returns a stem, stages of blocks, of which all but the first halve the size and double the channels, and the logits."""
    inputs = keras.Input(input_shape, name="images")
    x = stem(blocks, inputs, filters)
    for stage, count in enumerate(blocks_of_stages, start=1):
        for i in range(1, count + 1):
            strides = 2 if stage > 1 and i == 1 else 1
            x = block(blocks, x, filters * 2 ** (stage - 1), strides, f"stage{stage}_block{i}")
    return keras.Model(inputs, blocks.averaged_logits(x, classes), name=name)


def _small_stem(blocks: Blocks, x, filters: int):
    return blocks.relu(_convolution_norm(blocks, x, filters, "stem"), "stem_relu")


def _large_stem(blocks: Blocks, x, filters: int):
    x = blocks.relu(_convolution_norm(blocks, x, filters, "stem", size=7, strides=2), "stem_relu")
    # Zeros do not exceed any output of ReLU.
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def _block(blocks: Blocks, x, filters: int, strides: int, name: str):
    """Applies relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))); the shortcut is a 1x1 convolution where shapes change."""
    y = blocks.relu(_convolution_norm(blocks, x, filters, f"{name}_conv1", strides=strides), f"{name}_relu1")
    y = _convolution_norm(blocks, y, filters, f"{name}_conv2")
    return blocks.relu(_add(blocks, x, y, strides, name), f"{name}_relu2")


def _bottleneck(blocks: Blocks, x, filters: int, strides: int, name: str):
    """Applies a block of a 1x1, a 3x3 and a 1x1 convolution, the last with four times the channels."""
    y = blocks.relu(_convolution_norm(blocks, x, filters, f"{name}_conv1", size=1), f"{name}_relu1")
    y = blocks.relu(_convolution_norm(blocks, y, filters, f"{name}_conv2", strides=strides), f"{name}_relu2")
    y = _convolution_norm(blocks, y, 4 * filters, f"{name}_conv3", size=1)
    return blocks.relu(_add(blocks, x, y, strides, name), f"{name}_relu3")


def _add(blocks: Blocks, x, y, strides: int, name: str):
    if strides > 1 or x.shape[-1] != y.shape[-1]:
        x = _convolution_norm(blocks, x, y.shape[-1], f"{name}_shortcut", size=1, strides=strides)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _convolution_norm(blocks: Blocks, x, filters: int, name: str, *, size: int = 3, strides: int = 1):
    return blocks.batch_norm(blocks.convolution(x, filters, name, size=size, strides=strides), f"{name}_bn")
