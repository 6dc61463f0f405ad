"""Builds the networks.

A file has one family of networks. A network is a function, listed in `config.registry.MODELS` and called by `build.build`,
that returns a `keras.Model` from images to logits, float32 (batch, classes), with masks of ones. All have the same arguments:

Args:
  input_shape: (height, width, channels) of an image.
  classes: number of logits.
  seed: root seed of the initial weights.
  width: factor of all channels, > 0 (default 1): N times it are whole numbers. Only networks of several widths have it.
"""
