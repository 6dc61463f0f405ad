"""Prunes a network with two inputs, a sigmoid and binary cross-entropy: is the digit on the image smaller than a number?

    python examples/two_inputs.py

SNIP scores by the loss that the model is compiled with, on data as `fit` takes it: a dict of inputs.
"""

import argparse

import keras
import numpy as np
from sklearn.datasets import load_digits

import tf_pruneinit


def load(count: int | None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns inputs and labels: each image stands there with two numbers from 1 to 9."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.permutation(len(images))[:count]
    images, digits = np.repeat(images[order] / 16, 2, axis=0).reshape(-1, 8, 8, 1), np.repeat(digits[order], 2)
    numbers = np.random.randint(1, 10, len(digits))
    inputs = {"image": images.astype("float32"), "number": numbers[:, None].astype("float32") / 10}
    return inputs, (digits < numbers)[:, None].astype("float32")


def build() -> keras.Model:
    layers = keras.layers
    image, number = keras.Input((8, 8, 1), name="image"), keras.Input((1,), name="number")
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Dense(64, "relu")(layers.Flatten()(x))
    x = layers.Concatenate()([x, layers.Dense(32, "relu")(number)])
    x = layers.Dense(64, "relu")(x)
    return keras.Model({"image": image, "number": number}, layers.Dense(1, "sigmoid")(x))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of weights removed, in [0, 1); default 0.9")
    parser.add_argument("--seed", type=int, default=0, help="of weights, numbers and the order of images; default 0")
    parser.add_argument("--small", action="store_true", help="trains for one epoch, on few images")
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    inputs, labels = load(100 if options.small else None)
    cut = int(0.8 * len(labels))
    train, test = ({name: values[part] for name, values in inputs.items()} for part in (slice(cut), slice(cut, None)))
    epochs = 1 if options.small else 30
    model = build()
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-cut // 64))
    model.compile(keras.optimizers.Adam(schedule), "binary_crossentropy", metrics=["accuracy"])
    sample = {name: values[:200] for name, values in train.items()}, labels[: min(200, cut)]
    dense = tf_pruneinit.with_masks(model)  # the same weights, all of which remain
    pruned = tf_pruneinit.prune(model, "snip", options.sparsity, sample)

    print(f"{'network':<10}{'accuracy':>10}{'remaining weights':>28}")
    for name, network in {"dense": dense, "snip": pruned}.items():
        network.fit(train, labels[:cut], batch_size=64, epochs=epochs, verbose=0)
        accuracy = network.evaluate(test, labels[cut:], verbose=0, return_dict=True)["accuracy"]
        summary = tf_pruneinit.summary(network)
        print(f"{name:<10}{accuracy:>10.1%}{summary.remaining:>14,} of {summary.total:>10,}")


if __name__ == "__main__":
    main()
