"""Prunes a convolutional network by SNIP, and trains it with tf.data, AdamW, a cosine schedule and EarlyStopping.

    python examples/cnn.py
    TFDS_DATA_DIR=DIR python examples/cnn.py --dataset=mnist

The dense network and the pruned one begin with the same weights and are trained alike.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import tf_pruneinit


def load(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images in [0, 1], and labels: digits from scikit-learn, or training images from TFDS_DATA_DIR."""
    if dataset == "digits":
        images, labels = load_digits(return_X_y=True)
        return images.reshape(-1, 8, 8, 1) / 16, labels
    import tensorflow_datasets as tfds

    images, labels = tfds.load(dataset, split="train", batch_size=-1, as_supervised=True, download=False)
    return images.numpy() / 255, labels.numpy()


def build(shape: tuple[int, ...]) -> keras.Model:
    layers = keras.layers
    network = [keras.Input(shape)]
    for width in (32, 64):
        network += [layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        network += [layers.MaxPooling2D()]
    return keras.Sequential([*network, layers.Flatten(), layers.Dropout(0.2), layers.Dense(10)])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", choices=["digits", "mnist", "cifar10"], help="default digits")
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of weights removed, in [0, 1); default 0.9")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of images; default 0")
    parser.add_argument("--small", action="store_true", help="trains for one epoch, on few images")
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    images, labels = load(options.dataset)
    order = np.random.permutation(len(images))[: 400 if options.small else None]
    images, labels = images[order].astype("float32"), labels[order]
    parts = np.split(np.arange(len(images)), [int(0.7 * len(images)), int(0.8 * len(images))])
    train, validation, test = (tf.data.Dataset.from_tensor_slices((images[part], labels[part])) for part in parts)
    sample = tf_pruneinit.balanced_sample(train, classes=10, per_class=10, seed=options.seed)
    steps = -(-len(train) // 64)
    batches = train.shuffle(10_000, seed=options.seed).batch(64).prefetch(tf.data.AUTOTUNE)
    validation, test = validation.batch(64), test.batch(64)

    epochs = 1 if options.small else 40
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)
    model = build(images.shape[1:])
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    dense = tf_pruneinit.with_masks(model)  # the same weights, all of which remain
    pruned = tf_pruneinit.prune(model, "snip", options.sparsity, sample)

    print(f"{'network':<10}{'accuracy':>10}{'remaining weights':>28}")
    for name, network in {"dense": dense, "snip": pruned}.items():
        stop = keras.callbacks.EarlyStopping("val_loss", patience=10, restore_best_weights=True)
        network.fit(batches, epochs=epochs, validation_data=validation, callbacks=[stop], verbose=0)
        accuracy = network.evaluate(test, verbose=0, return_dict=True)["accuracy"]
        summary = tf_pruneinit.summary(network)
        print(f"{name:<10}{accuracy:>10.1%}{summary.remaining:>14,} of {summary.total:>10,}")


if __name__ == "__main__":
    main()
