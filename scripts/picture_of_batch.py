"""Draws a batch of a dataset as it is stored, or read to test on, and below it a batch that the network is trained on.

python scripts/picture_of_batch.py cifar10 docs/pictures/cifar10.jpg
python scripts/picture_of_batch.py tiny_imagenet docs/pictures/tiny_imagenet_resized.jpg resized_crop

The second batch is drawn from -2.5 (dark) to 2.5 (bright), each color channel separately.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.datasets.stream import Stream
from tf_pruneinit.training import step

COLUMNS, ROWS = 8, 2
WIDTH, GAP = 96, 4


def stored_and_trained_on(dataset):
    """Returns the first test images, uint8, and the first training batch, float32: (count, height, width, channels)."""
    count = COLUMNS * ROWS
    stored, _ = next(dataset.test.in_order(count))
    if isinstance(dataset.train, Stream):
        images, _ = next(dataset.train.shuffled(count, seed=0, epoch=0))
        draws = dataset.augmentation.draws(np.random.default_rng(seeds.derive(0, "data", "draws", 0)), count)
    else:
        indices, draws = next(step.batches(dataset, count, seed=0, epoch=0))
        images, draws = dataset.train.images[indices[0]], draws[0]
    return stored, dataset.preprocessing(dataset.augmentation(tf.constant(images), draws)).numpy()


def sheet(images):
    """Returns one image of images (count, height, width, channels) in rows, with a gap around each."""
    side = (WIDTH, WIDTH)
    images = tf.image.resize(images, side, method="area" if images.shape[1] > WIDTH else "nearest")
    if images.shape[-1] == 1:
        images = tf.image.grayscale_to_rgb(images)
    cells = np.pad(images, [(0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=255)
    cells = cells[: len(cells) // COLUMNS * COLUMNS].reshape(-1, COLUMNS, *cells.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in cells])


def main(name, path, augmentation="default"):
    dataset = datasets.load(name).augmented(augmentation)
    stored, trained_on = stored_and_trained_on(dataset)
    stored = stored * (255 / dataset.preprocessing.scale)
    trained_on = np.clip((trained_on + 2.5) / 5 * 255, 0, 255)
    picture = np.concatenate([sheet(stored), np.full((3 * GAP, COLUMNS * (WIDTH + GAP), 3), 255), sheet(trained_on)])
    keras.utils.save_img(path, picture, scale=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
