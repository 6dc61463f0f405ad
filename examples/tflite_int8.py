"""Prunes a convolutional network by SNIP, trains it, strips it of its masks and converts it to TFLite in int8.

    python examples/tflite_int8.py --out=DIR

The removed weights are zeros of int8 too, exactly. TFLite stores each of them: what shrinks is the file as it is compressed.
"""

import argparse
import pathlib
import tempfile
import zlib

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import tf_pruneinit


def build() -> keras.Model:
    layers = keras.layers
    network = [keras.Input((8, 8, 1))]
    for width in (32, 64):
        network += [layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        network += [layers.MaxPooling2D()]
    return keras.Sequential([*network, layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10)])


def convert(model: keras.Model, images: np.ndarray) -> bytes:
    """Returns the TFLite file of a model of stock layers, int8 throughout; ranges of activations are those of the images."""
    with tempfile.TemporaryDirectory() as directory:
        model.export(directory, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


def classify(file: bytes, images: np.ndarray) -> np.ndarray:
    """Returns the class of each image."""
    interpreter = tf.lite.Interpreter(model_content=file)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], images.shape)
    interpreter.allocate_tensors()
    scale, zero = source["quantization"]
    interpreter.set_tensor(source["index"], np.clip(np.round(images / scale) + zero, -128, 127).astype("int8"))
    interpreter.invoke()
    return interpreter.get_tensor(target["index"]).argmax(-1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of weights removed, in [0, 1); default 0.9")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of images; default 0")
    parser.add_argument("--out", default="", help="directory for dense.tflite and snip.tflite; default: none is written")
    parser.add_argument("--small", action="store_true", help="trains for one epoch")
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    images, labels = load_digits(return_X_y=True)
    order = np.random.permutation(len(images))
    images, labels = images[order].reshape(-1, 8, 8, 1).astype("float32") / 16, labels[order]
    epochs = 1 if options.small else 30
    model = build()
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * 22)
    model.compile(
        keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    dense = tf_pruneinit.with_masks(model)  # the same weights, all of which remain
    pruned = tf_pruneinit.prune(model, "snip", options.sparsity, (images[:200], labels[:200]))

    rows = [f"{'network':<10}{'accuracy':>10}{'in int8':>10}{'bytes':>10}{'deflated':>10}{'remaining weights':>28}"]
    for name, network in {"dense": dense, "snip": pruned}.items():
        network.fit(images[:1400], labels[:1400], batch_size=64, epochs=epochs, verbose=0)
        accuracy = network.evaluate(images[1400:], labels[1400:], verbose=0, return_dict=True)["accuracy"]
        file = convert(tf_pruneinit.strip(network), images[:200])
        quantized = np.mean(classify(file, images[1400:]) == labels[1400:])
        summary = tf_pruneinit.summary(network)
        row = f"{name:<10}{accuracy:>10.1%}{quantized:>10.1%}{len(file):>10,}{len(zlib.compress(file, 9)):>10,}"
        rows.append(f"{row}{summary.remaining:>14,} of {summary.total:>10,}")
        if options.out:
            pathlib.Path(options.out).mkdir(parents=True, exist_ok=True)
            (pathlib.Path(options.out) / f"{name}.tflite").write_bytes(file)
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
