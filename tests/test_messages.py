"""A mistake in a call is one line: what the rule is, what was given, and what to give instead."""

import functools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.errors import DataError, UsageError

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(6, 8, 9, 3)).astype("float32")
LABELS = np.arange(6) % 3
ONES = np.ones((3, 3, 3, 4))


def pairs():
    """TensorFlow may start only when tests do."""
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))


@functools.cache
def network():
    inputs = keras.Input((8, 9, 3))
    x = L.Flatten()(L.Conv2D(4, 3, name="conv")(inputs))
    return keras.Model(inputs, L.Dense(3, name="fc")(x), name="net")


@functools.cache
def masked():
    return tf_pruneinit.with_masks(network())


def unbuilt():
    return keras.Sequential([L.Dense(3)])


def of_one_output():
    return keras.Sequential([keras.Input((8, 9, 3)), L.Flatten(), L.Dense(1, "sigmoid")])


def of_any_size():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(2, 5)(inputs))))


def of_words():
    return keras.Sequential([keras.Input((5,), dtype="int32"), L.Embedding(10, 4), L.Flatten(), L.Dense(3)])


class Subclassed(keras.Model):
    def call(self, x):
        return x


def unbatched(image, label):
    return {"image": image, "label": label}


def only_images(image, label):
    return image


# Of each mistake: what was received, and what to do instead.
DATA = {
    "too few weights": ((IMAGES, LABELS, np.ones(4)), "got the shape (4,)", "one for each of 6 examples"),
    "images alone": (IMAGES, "got an array of shape (6, 8, 9, 3)", "give (images, labels)"),
    "batches of images": (lambda: pairs().map(only_images).batch(3), "of shape (3, 8, 9, 3)", "give (images, labels)"),
    "name": ("cifar10", "got 'cifar10'", "give (images, labels)"),
    "dict": ({"image": IMAGES, "label": LABELS}, "a dict with image, label", "(one['image'], one['label'])"),
    "batches in dicts": (lambda: pairs().batch(3).map(unbatched), "a dict with image, label", "(one['image'], one['label'])"),
    "numbers for labels": ((IMAGES, LABELS / 2), "labels that are not whole numbers", "are they probabilities of one class"),
    "words for labels": ((IMAGES, list("abcabc")), "<U1 labels", "np.unique(labels, return_inverse=True)[1]"),
    "scores for labels": ((IMAGES, np.full((6, 3), 0.5)), "float64 labels of shape (6, 3)", "labels.argmax(axis=-1)"),
    "other classes": ((IMAGES, np.eye(4)[LABELS]), "labels of shape (6, 4)", "the model gives 3 classes"),
    "labels from one": ((IMAGES, LABELS + 1), "got 1 to 3", "labels - 1"),
    "too few labels": ((IMAGES, LABELS[:4]), "labels of shape (4,) for 6 images", "a label for each image"),
    "one class": ((IMAGES, LABELS * 0), "got only 0", "give examples of several classes"),
    "no batches": (lambda: pairs(), "got the shape (8, 9, 3)", "dataset.batch(n) makes batches"),
    "one image": ((IMAGES[0], [1]), "got the shape (8, 9, 3)", "images[None] is a batch"),
    "channels first": ((np.moveaxis(IMAGES, -1, 1), LABELS), "got the shape (6, 3, 8, 9)", "np.moveaxis(images, 1, -1)"),
    "flat images": ((IMAGES.reshape(6, -1), LABELS), "got the shape (6, 216)", "images.reshape(-1, 8, 9, 3)"),
    "labels first": ((LABELS, IMAGES), "got the shape (6,)", "images come first"),
    "bytes": ((IMAGES.astype("uint8"), LABELS), "got uint8", "images.astype('float32') / 255"),
    "nan": ((IMAGES * np.nan, LABELS), "images and scores must be finite", "1296 are not"),
    "repeated": (lambda: pairs().batch(3).repeat(), "a tf.data.Dataset that repeats forever", "dataset.take(n)"),
}
SAMPLE = {
    "two arrays": ((IMAGES, LABELS), "got two arrays", "zip(images, labels)"),
    "three arrays": ((IMAGES, LABELS, LABELS), "got a tuple of 3", "give pairs alone"),
    "images alone": (IMAGES, "got an array of shape (6, 8, 9, 3)", "give pairs"),
    "batches": (lambda: pairs().batch(2), "a label of shape (2,)", "dataset.unbatch()"),
    "repeated": (lambda: pairs().repeat(), "a tf.data.Dataset that repeats forever", "dataset.take(n)"),
    "dicts": (lambda: pairs().map(unbatched), "a dict with image, label", "(one['image'], one['label'])"),
    "weights": ([(IMAGES[0], 0, 1.0)], "got a tuple of 3", "give (image, label) alone"),
    "column of labels": ([(IMAGES[0], LABELS[:1])], "a label of shape (1,)", "label[0]"),
    "one-hot": ([(IMAGES[0], np.eye(3)[0])], "a label of shape (3,)", "argmax()"),
    "numbers for labels": ([(IMAGES[0], 1.0)], "got the label 1.0", "give integers"),
    "other shapes": ([(IMAGES[0], 0), (IMAGES[0, 1:], 1)], "got (7, 9, 3) and (8, 9, 3)", "resize them"),
    "name": ("mnist", "got 'mnist'", "give pairs"),
}
MASKS = {
    "half": ({"conv/kernel": ONES / 2}, "got 0.5 and others, 108 of 108 values", "mask > threshold"),
    "one half": ({"conv/kernel": np.where(np.arange(4) == 1, 0.5, ONES)}, "got 0.5 and others, 27 of 108", "mask > threshold"),
    "nan": ({"conv/kernel": ONES * np.nan}, "got nan", "must hold 0 and 1"),
    "counts": ({"conv/kernel": ONES.astype(int) * 2}, "got 2 and others", "mask != 0"),
    "nearly one": ({"conv/kernel": ONES + 1e-12}, "got 1.000000000001", "must hold 0 and 1"),
    "shape": ({"conv/kernel": np.ones((3, 3))}, "got the shape (3, 3)", "in the shape (3, 3, 3, 4)"),
    "words": ({"conv/kernel": np.full(ONES.shape, "1")}, "got array(", "must be an array in the shape (3, 3, 3, 4)"),
    "path": ({"cnov/kernel": ONES}, "got 'cnov/kernel'", "did you mean conv/kernel?"),
    "a list": ([ONES], "got list", "as masks(model) gives"),
}
CALLS = {
    "masks of no masks": (lambda: tf_pruneinit.set_masks(network(), {"conv/kernel": ONES}), "got net", "with_masks(model)"),
    "percent": (lambda: tf_pruneinit.prune(network(), "magnitude", 90), "got 90", "did you mean 0.9?"),
    "percent in numpy": (lambda: tf_pruneinit.prune(network(), "magnitude", np.float32(97.5)), "97.5", "did you mean 0.975?"),
    "a pattern": (lambda: tf_pruneinit.with_masks(network(), "fc"), "the string 'fc'", "('fc',)"),
    "other layers": (lambda: tf_pruneinit.with_masks(network(), ["head"]), "got 'head'", "(conv, fc)"),
    "a layer": (lambda: tf_pruneinit.score(L.Dense(3, name="fc"), "magnitude"), "got Dense", "keras.Sequential([inputs, fc])"),
    "not built": (
        lambda: tf_pruneinit.score(keras.Sequential([L.Dense(3)]), "magnitude"),
        "the model must be built; got",
        "give it an Input",
    ),
    "subclassed": (lambda: tf_pruneinit.prune(Subclassed(name="mine"), "magnitude", 0.5), "Subclassed mine", "register"),
    "one output": (
        lambda: tf_pruneinit.score(of_one_output(), "snip", (IMAGES, LABELS)),
        "the shape (None, 1)",
        "compile the model with a loss",
    ),
    "scores of others": (
        lambda: tf_pruneinit.prune(network(), "magnitude", 0.5, scores={"a/kernel": ONES}),
        "got those of a/kernel",
        "of conv/kernel, fc/kernel",
    ),
    "scores of another shape": (
        lambda: tf_pruneinit.prune(network(), "magnitude", 0.5, scores={"conv/kernel": ONES[0], "fc/kernel": ONES}),
        "got the shape (3, 3, 4)",
        "for conv/kernel an array of numbers of the shape (3, 3, 3, 4)",
    ),
    "images too small": (
        lambda: tf_pruneinit.score(of_any_size(), "snip", (IMAGES[:, :3, :3], LABELS)),
        "the model cannot be computed on these examples",
        "input_size: 3, effective_filter_size: 5",
    ),
    "unknown words": (
        lambda: tf_pruneinit.score(of_words(), "snip", (np.full((6, 5), 11), LABELS)),
        "the model cannot be computed on these examples",
        "= 11 is not in [0, 10)",
    ),
}


def require_line(call, received, remedy):
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert received in message
    assert remedy in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("mistake", DATA)
def test_data(mistake):
    data, *expected = DATA[mistake]
    data = data() if callable(data) else data
    require_line(lambda: tf_pruneinit.score(network(), "snip", data), *expected)


@pytest.mark.parametrize("mistake", SAMPLE)
def test_sample(mistake):
    examples, *expected = SAMPLE[mistake]
    examples = examples() if callable(examples) else examples
    require_line(lambda: tf_pruneinit.balanced_sample(examples, classes=3, per_class=1), *expected)


@pytest.mark.parametrize("mistake", MASKS)
def test_masks(mistake):
    masks, *expected = MASKS[mistake]
    before = tf_pruneinit.masks(masked())
    require_line(lambda: tf_pruneinit.set_masks(masked(), masks), *expected)
    for path, mask in tf_pruneinit.masks(masked()).items():
        np.testing.assert_array_equal(mask, before[path])


@pytest.mark.parametrize("mistake", CALLS)
def test_call(mistake):
    require_line(*CALLS[mistake])


# What nobody means, to be refused wherever it is given.
THINGS = [None, 3, -1, 0.5, float("nan"), 10**30, True, "x", b"x", "\0", [], [1], [None], {}, {"a": 1}, {1: 2}, (1, 2), set()]
THINGS += [IMAGES, np.array(None), "a tensor", object(), Subclassed, len]
OPTIONS = ("temperature", "grasp_gradient", "inner_steps", "inner_rate", "meta_gradients", "search_rate", "seed", "precision")
OPTIONS += ("batch_size", "accumulate", "exclude")


def calls(thing):
    """Every function of the API with the thing in place of each of its arguments."""
    for name in (
        "score",
        "prune",
        "with_masks",
        "set_masks",
        "masks",
        "summary",
        "compact",
        "ship",
        "strip",
        "mask_in_place",
        "compress",
    ):
        more = {"score": ("magnitude",), "prune": ("magnitude", 0.5), "set_masks": ({"a": 1},), "compress": ("file",)}.get(
            name, ()
        )
        yield name, lambda name=name, more=more: getattr(tf_pruneinit, name)(thing, *more)
    yield "method", lambda: tf_pruneinit.score(network(), thing)
    for option in OPTIONS:
        yield option, lambda option=option: tf_pruneinit.score(network(), "random", (IMAGES, LABELS), **{option: thing})
    for option in ("sparsity", "scope", "target", "min_remaining", "ablation", "scores"):
        arguments = {"sparsity": 0.5} | {option: thing}
        yield option, lambda arguments=arguments: tf_pruneinit.prune(network(), "magnitude", **arguments)
    for option in ("loss", "loss_weights", "class_weight", "regularizers"):
        yield option, lambda option=option: tf_pruneinit.score(network(), "snip", (IMAGES, LABELS), **{option: thing})
    yield "loss of outputs", lambda: tf_pruneinit.score(network(), "snip", (IMAGES, LABELS), loss={"fc": thing})
    yield "weights", lambda: tf_pruneinit.score(network(), "snip", (IMAGES, LABELS, thing))
    yield "weights in batches", lambda: tf_pruneinit.score(network(), "snip", [(IMAGES, LABELS, thing)])
    for densities in (thing, {"fc": thing}):
        yield "densities", lambda d=densities: tf_pruneinit.prune(network(), "random", 0.5, densities=d)
    for data in (thing, (thing, LABELS), (IMAGES, thing), [thing]):
        yield "data", lambda data=data: tf_pruneinit.score(network(), "snip", data)
    for masks in (thing, {"conv/kernel": thing}):
        yield "masks", lambda masks=masks: tf_pruneinit.set_masks(masked(), masks)
    for examples in (thing, [thing], [(IMAGES[0], thing)]):
        yield "examples", lambda examples=examples: tf_pruneinit.balanced_sample(examples, classes=3, per_class=1)
    for option in ("per_class", "seed"):
        arguments = {"classes": 1, "per_class": 1} | {option: thing}
        yield option, lambda arguments=arguments: tf_pruneinit.balanced_sample([(IMAGES[0], 0)], **arguments)
    yield "register", lambda: tf_pruneinit.register(thing, "kernel")
    yield "kernels", lambda: tf_pruneinit.register(type("Mine", (L.Layer,), {}), thing)
    yield "load", lambda: tf_pruneinit.load(thing)
    if not isinstance(thing, (str, bytes)):
        yield "path", lambda: tf_pruneinit.compress(masked(), thing)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("thing", THINGS, ids=[f"{place}-{type(thing).__name__}" for place, thing in enumerate(THINGS)])
def test_nothing_that_is_given_in_place_of_anything_is_an_error_from_inside(thing, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    thing = tf.constant(1.0) if isinstance(thing, str) and thing == "a tensor" else thing
    for what, call in calls(thing):
        if what != "kernels" or not isinstance(thing, str):  # A text may be the name of an attribute.
            try:
                call()
            except (UsageError, DataError) as error:
                assert "\n" not in str(error), what
            except Exception as error:
                pytest.fail(f"{what}: {type(error).__name__}: {error}")


def test_files_are_named_by_paths_too(tmp_path):
    path = pathlib.Path(tmp_path) / "net.tfpruned"
    tf_pruneinit.compress(masked(), path)
    assert list(tf_pruneinit.masks(tf_pruneinit.load(path))) == list(tf_pruneinit.masks(masked()))
