"""Defines what an experiment is: options, their defaults, flags, the registry of methods, models, datasets. No TensorFlow."""
