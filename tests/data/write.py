"""Writes the files of this folder: what users have on their disks, as a version of the package wrote it.

Tests load them with every later version; so they are never written again. A new kind of file gets a folder of its own.

    python tests/data/write.py FOLDER
"""

import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np

import tf_pruneinit
from tf_pruneinit import __version__

L = keras.layers
STEPS = 40
COMMON = ["--dataset=digits", "--model=convnet", f"--train_steps={STEPS}", "--batch_size=256", "--sparsity=0.9"]
# Runs that are asked to end (SIGTERM) half-way: their options, by the name of their folder.
RUNS = {
    "snip": ["--method=snip"],
    "rigl": ["--method=rigl", "--update_every=5"],
    "rewinding": ["--method=magnitude", "--prune_at=end", "--rewind_to=5"],
    "compact": ["--method=synflow", "--iterations=3", "--sparsity=0.98", "--compact=true"],
}


def network():
    """A network with a layer of every class that has masks, pruned to a tenth and trained for a step."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 4, 2))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(x))
    x = L.SeparableConv2D(4, 2, padding="same")(L.DepthwiseConv2D(2, padding="same")(x))
    x = L.Conv2DTranspose(4, 2, padding="same")(x)
    volume = L.Conv3D(2, 2, padding="same")(L.Reshape((4, 4, 2, 2))(x))
    volume = L.Flatten()(L.Conv3DTranspose(2, 2, padding="same")(volume))
    video = L.Reshape((2, 2, 4, 4))(x)
    film = L.Flatten()(L.ConvLSTM2D(2, 2, padding="same")(video))
    x = L.Reshape((16, 4))(x)
    x = L.SeparableConv1D(4, 2, padding="same")(L.DepthwiseConv1D(2, padding="same")(L.Conv1D(4, 2, padding="same")(x)))
    x = L.Conv1DTranspose(4, 2, padding="same")(x)
    x = L.MultiHeadAttention(2, 2)(x, x)
    x = L.GroupQueryAttention(2, 2, 1)(x, x)
    x = L.EinsumDense("abc,cd->abd", output_shape=(None, 4))(x)
    x = L.TimeDistributed(L.Dense(4))(x)
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    x = L.SimpleRNN(4)(L.GRU(4, return_sequences=True)(x))
    x = L.Concatenate()([x, volume, film])
    model = keras.Model(inputs, L.Dense(3, name="logits")(x))
    model = tf_pruneinit.prune(model, "random", 0.9, scope="layerwise")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 4, 4, 2)), rng.integers(0, 3, 8), verbose=0)
    return model


def half_way(workdir, options):
    """A run that ends after a few records, with a checkpoint."""
    command = [sys.executable, "-m", "tf_pruneinit.main", *COMMON, f"--workdir={workdir}", *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while sum(path.read_text().count("\n") for path in workdir.glob("*/records.jsonl")) < 3:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert [*workdir.glob("*/checkpoints/step-*.npz")], "nothing was saved"


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    model = network()
    images = np.random.default_rng(1).normal(size=(3, 4, 4, 2)).astype("float32")
    np.savez(folder / "network.npz", images=images, outputs=model(images, training=False), **tf_pruneinit.masks(model))
    model.save(folder / "network.keras")
    tf_pruneinit.compress(model, str(folder / "network.tfpruned"))
    for name, options in RUNS.items():
        half_way(folder / "runs" / name, options)
    complete = folder / "complete"
    options = ["--method=snip", "--train_steps=4", "--export=saved_model,compressed"]
    subprocess.run([sys.executable, "-m", "tf_pruneinit.main", *COMMON, *options, f"--workdir={complete}"], check=True)
    (folder / "version.txt").write_text(f"{__version__}\n")


if __name__ == "__main__":
    main()
