"""Prunes MobileNetV3 at 64x64 by SynFlow, which needs no data and cuts none of the narrow layers of such networks.

    python examples/mobilenet.py

The images are bright shapes in random colors, at random positions, on dark ground, with noise.
"""

import argparse

import keras
import numpy as np

import tf_pruneinit

CLASSES = ("disc", "square", "triangle", "cross", "ring")


def draw(count: int, seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, (count, size, size, 3) in 0 to 255, and the index of the shape on each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(CLASSES), size=count)
    radius = rng.uniform(8, 18, (count, 1, 1))
    y, x = (np.arange(size) - rng.uniform(20, size - 20, (count, 1, 1)) for _ in range(2))
    y, x = y.transpose(0, 2, 1) / radius, x / radius
    distance, largest = np.hypot(x, y), np.maximum(abs(x), abs(y))
    shapes = np.stack(
        [
            distance < 1,
            largest < 0.9,
            (y < 0.8) & (y > 2 * abs(x) - 1),
            (largest < 1) & (np.minimum(abs(x), abs(y)) < 0.3),
            (distance < 1.1) & (distance > 0.65),
        ]
    )
    inside = shapes[labels, np.arange(count)][..., None]
    dark, bright = (rng.uniform(low, low + 100, (count, 1, 1, 3)) for low in (0, 155))
    noise = rng.normal(0, 15, (count, size, size, 3))
    return np.clip(np.where(inside, bright, dark) + noise, 0, 255).astype("float32"), labels


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.8, help="fraction of weights removed, in [0, 1); default 0.8")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of images; default 0")
    parser.add_argument("--small", action="store_true", help="trains for one step; SynFlow has two iterations")
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    count, epochs = (8, 1) if options.small else (1200, 6)
    images, labels = draw(count, seed=1)
    test_images, test_labels = draw(max(count // 4, 8), seed=2)
    # It preprocesses images itself: give it 0 to 255.
    model = keras.applications.MobileNetV3Small((64, 64, 3), weights=None, classes=len(CLASSES), dropout_rate=0.0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.999 averages over a thousand steps: more than we train
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-count // 32))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    iterations = 2 if options.small else 100
    dense = tf_pruneinit.with_masks(model)  # the same weights, all of which remain
    pruned = tf_pruneinit.prune(model, "synflow", options.sparsity, iterations=iterations)

    print(f"{'network':<10}{'accuracy':>10}{'remaining weights':>28}")
    for name, network in {"dense": dense, "synflow": pruned}.items():
        network.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
        accuracy = network.evaluate(test_images, test_labels, batch_size=64, verbose=0, return_dict=True)["accuracy"]
        summary = tf_pruneinit.summary(network)
        print(f"{name:<10}{accuracy:>10.1%}{summary.remaining:>14,} of {summary.total:>10,}")


if __name__ == "__main__":
    main()
