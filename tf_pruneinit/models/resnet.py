"""Residual networks: ResNet-20 for small images, ResNet-18 and ResNet-50.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with projection shortcuts. In ResNet-50 the
3x3 convolution has the stride, as in Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
"""

from collections.abc import Callable, Sequence

import keras

from tf_pruneinit.models import blocks


def resnet20(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns ResNet-20: a 3x3 stem, three stages of three blocks with 16, 32 and 64 channels, a global average, one dense
    layer. 270,896 prunable weights on 32x32x3 with ten classes.

    `width` multiplies the channels.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _small_stem(inputs, 16 * width, seed)
    return _resnet("resnet20", inputs, x, _block, (3, 3, 3), 16 * width, classes, seed)


def resnet18(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns ResNet-18: a 7x7 stem of stride 2 and a 3x3 max-pool of stride 2, four stages of two blocks with 64, 128, 256 and
    512 channels, a global average, one dense layer. 11,269,312 prunable weights on three channels with 200 classes.

    `width` multiplies the channels.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _large_stem(inputs, 64 * width, seed)
    return _resnet("resnet18", inputs, x, _block, (2, 2, 2, 2), 64 * width, classes, seed)


def resnet18_modified(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns ResNet-18 for small images: its stem is a 3x3 convolution of stride 1, and there is no max-pool. 11,261,632
    prunable weights on three channels with 200 classes.

    `width` multiplies the channels.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _small_stem(inputs, 64 * width, seed)
    return _resnet("resnet18_modified", inputs, x, _block, (2, 2, 2, 2), 64 * width, classes, seed)


def resnet50(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns ResNet-50: ResNet-18's stem, four stages of 3, 4, 6 and 3 bottleneck blocks that end in 256, 512, 1024 and 2048
    channels, a global average, one dense layer. 25,502,912 prunable weights on three channels with 1,000 classes.

    `width` multiplies the channels.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _large_stem(inputs, 64 * width, seed)
    return _resnet("resnet50", inputs, x, _bottleneck, (3, 4, 6, 3), 64 * width, classes, seed)


def _resnet(
    name: str, inputs, x, block: Callable, blocks_of_stages: Sequence[int], filters: int, classes: int, seed: int
) -> keras.Model:
    """Stages of blocks, of which all but the first halve the size and double the channels; then the logits."""
    for stage, count in enumerate(blocks_of_stages, start=1):
        for i in range(1, count + 1):
            strides = 2 if stage > 1 and i == 1 else 1
            x = block(x, filters * 2 ** (stage - 1), strides, name=f"stage{stage}_block{i}", seed=seed)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, blocks.logits(x, classes, name="fc", seed=seed), name=name)


def _small_stem(x, filters: int, seed: int):
    return blocks.relu(_convolution_norm(x, filters, name="stem", seed=seed), name="stem_relu")


def _large_stem(x, filters: int, seed: int):
    x = blocks.relu(_convolution_norm(x, filters, name="stem", seed=seed, size=7, strides=2), name="stem_relu")
    # Zeros are no more than what ReLU leaves.
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def _block(x, filters: int, strides: int, *, name: str, seed: int):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))); the shortcut is a 1x1 convolution where shapes change."""
    y = _convolution_norm(x, filters, name=f"{name}_conv1", seed=seed, strides=strides)
    y = blocks.relu(y, name=f"{name}_relu1")
    y = _convolution_norm(y, filters, name=f"{name}_conv2", seed=seed)
    return _add(x, y, strides, name=name, seed=seed, last="relu2")


def _bottleneck(x, filters: int, strides: int, *, name: str, seed: int):
    """As `_block`, of a 1x1, a 3x3 and a 1x1 convolution, the last with four times the channels."""
    y = blocks.relu(_convolution_norm(x, filters, name=f"{name}_conv1", seed=seed, size=1), name=f"{name}_relu1")
    y = _convolution_norm(y, filters, name=f"{name}_conv2", seed=seed, strides=strides)
    y = blocks.relu(y, name=f"{name}_relu2")
    y = _convolution_norm(y, 4 * filters, name=f"{name}_conv3", seed=seed, size=1)
    return _add(x, y, strides, name=name, seed=seed, last="relu3")


def _add(x, y, strides: int, *, name: str, seed: int, last: str):
    if strides > 1 or x.shape[-1] != y.shape[-1]:
        x = _convolution_norm(x, y.shape[-1], name=f"{name}_shortcut", seed=seed, size=1, strides=strides)
    return blocks.relu(keras.layers.Add(name=f"{name}_add")([x, y]), name=f"{name}_{last}")


def _convolution_norm(x, filters: int, *, name: str, seed: int, size: int = 3, strides: int = 1):
    x = blocks.convolution(x, filters, name=name, seed=seed, size=size, strides=strides)
    return blocks.batch_norm(x, name=f"{name}_bn", seed=seed)
