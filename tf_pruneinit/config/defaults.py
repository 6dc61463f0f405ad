"""Lists default hyper-parameters of each dataset and model.

Those marked as the paper's are from Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at Initialization: Why Are We
Missing the Mark?", ICLR 2021, appendix; the others are chosen so that training converges on two CPU cores.
"""

import dataclasses

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Train

_CIFAR = Train(epochs=160, learning_rate_drops=(80, 120))
_SMALL = Train(epochs=20, learning_rate_drops=(10, 15))
_SMALLER_BATCHES = dataclasses.replace(_SMALL, batch_size=64)
_LENET5 = dataclasses.replace(_SMALL, learning_rate=0.02)
_TINY = Train(epochs=200, batch_size=256, learning_rate=0.2, learning_rate_drops=(100, 150), warmup_epochs=5)

# The usual learning rate and weight decay of each optimizer: what suits one does not suit the other.
_USUAL = {"sgd": (Train.learning_rate, Train.weight_decay), "adamw": (1e-3, 1e-2)}
_VIT = Train(epochs=200, schedule="cosine", optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_epochs=10)

RECIPES = {
    ("digits", "lenet_300_100"): Train(epochs=100, batch_size=64, momentum=0.0, weight_decay=0.0),
    ("digits", "convnet"): _SMALLER_BATCHES,
    ("digits", "resnet20"): _SMALLER_BATCHES,
    ("mnist", "lenet_300_100"): Train(epochs=40, momentum=0.0, weight_decay=0.0),  # the paper's
    ("mnist", "lenet5"): _LENET5,
    ("mnist", "lenet5_caffe"): _LENET5,
    ("mnist", "convnet"): _SMALL,
    ("mnist", "resnet20"): _SMALL,
    ("mnist", "vgg16"): _SMALL,
    ("cifar10", "lenet_300_100"): Train(epochs=40, learning_rate=0.05, learning_rate_drops=(20, 30)),
    ("cifar10", "convnet"): Train(epochs=40, learning_rate_drops=(20, 30)),
    ("cifar10", "resnet20"): _CIFAR,  # the paper's
    **{(f"cifar{classes}", f"resnet{layers}"): _CIFAR for classes in (10, 100) for layers in (32, 44, 56, 110)},
    **{(f"cifar{classes}", f"wide_resnet{layers}"): _CIFAR for classes in (10, 100) for layers in (16, 22, 28)},
    ("cifar10", "vgg11"): _CIFAR,
    ("cifar10", "vgg16"): _CIFAR,  # the paper's
    ("cifar10", "vgg19"): _CIFAR,
    ("cifar10", "vit_tiny"): _VIT,
    ("cifar100", "vit_tiny"): _VIT,
    ("cifar100", "resnet20"): _CIFAR,
    ("cifar100", "vgg11"): _CIFAR,
    ("cifar100", "vgg16"): _CIFAR,
    ("cifar100", "vgg19"): _CIFAR,
    ("tiny_imagenet", "resnet18"): dataclasses.replace(_TINY, augmentation="resized_crop"),  # the paper's
    ("tiny_imagenet", "resnet18_modified"): _TINY,  # the paper's
    ("imagenet2012", "resnet50"): Train(  # the paper's
        epochs=90, batch_size=1024, learning_rate=0.4, learning_rate_drops=(30, 60, 80), warmup_epochs=5
    ),
}


def recipe(dataset: str, model: str, optimizer: str | None = None) -> Train:
    """Returns the hyper-parameters of a dataset and model, of a wider network those of the row, else `Train`'s defaults.

    Args:
      dataset: a row of `registry.DATASETS`.
      model: the name of a network.
      optimizer: another one than the row's has the usual learning rate and decay for it; None (default) is the row's.
    """
    plan = RECIPES.get((dataset, registry.family(model)[0]), Train())
    if optimizer not in _USUAL or optimizer == plan.optimizer:
        return plan
    learning_rate, weight_decay = _USUAL[optimizer]
    return dataclasses.replace(plan, optimizer=optimizer, learning_rate=learning_rate, weight_decay=weight_decay)
