"""Labeled images, their augmentation, and class-balanced samples of them."""
