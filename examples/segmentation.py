"""Prunes a small U-Net by SNIP: it says of every pixel whether it is background, disc or square.

    python examples/segmentation.py

Labels are masks of images, and so the loss is a mean over pixels. Most of them are background: read the
intersection over union.
"""

import argparse

import keras
import numpy as np

import tf_pruneinit

SIZE = 32


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, (count, 32, 32, 1), of a disc and a square on noise, and the class of every pixel."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, SIZE, SIZE), "int32")
    for shape in (1, 2):
        radius = rng.uniform(3, 7, (count, 1, 1))
        y, x = rng.uniform(6, SIZE - 6, (2, count, 1, 1))
        down, right = abs(np.arange(SIZE)[:, None] - y), abs(np.arange(SIZE) - x)
        labels[(np.hypot(down, right) if shape == 1 else np.maximum(down, right)) < radius] = shape
    images = (labels > 0) * rng.uniform(0.5, 1, (count, 1, 1)) + rng.normal(0, 0.25, labels.shape)
    return images[..., None].astype("float32"), labels


def build() -> keras.Model:
    def block(x, width):
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(x)))
        return x

    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 1))
    fine = block(image, 16)
    middle = block(layers.MaxPooling2D()(fine), 32)
    coarse = block(layers.MaxPooling2D()(middle), 64)
    up = layers.Conv2DTranspose(32, 2, strides=2)(coarse)
    up = block(layers.Concatenate()([up, middle]), 32)
    up = layers.Conv2DTranspose(16, 2, strides=2)(up)
    return keras.Model(image, layers.Conv2D(3, 1)(block(layers.Concatenate()([up, fine]), 16)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of weights removed, in [0, 1); default 0.9")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of images; default 0")
    parser.add_argument("--small", action="store_true", help="trains for one step, on few images")
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    count, epochs = (8, 1) if options.small else (1500, 12)
    images, labels = draw(count, seed=1)
    test_images, test_labels = draw(max(count // 4, 8), seed=2)
    model = build()
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-count // 32))),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.MeanIoU(3, sparse_y_pred=False, name="iou")],
    )
    dense = tf_pruneinit.with_masks(model)  # the same weights, all of which remain
    pruned = tf_pruneinit.prune(model, "snip", options.sparsity, (images[:64], labels[:64]), batch_size=32)

    print(f"{'network':<10}{'accuracy':>10}{'IoU':>10}{'remaining weights':>28}")
    for name, network in {"dense": dense, "snip": pruned}.items():
        network.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
        metrics = network.evaluate(test_images, test_labels, verbose=0, return_dict=True)
        summary = tf_pruneinit.summary(network)
        print(f"{name:<10}{metrics['accuracy']:>10.1%}{metrics['iou']:>10.1%}{summary.remaining:>14,} of {summary.total:>10,}")


if __name__ == "__main__":
    main()
