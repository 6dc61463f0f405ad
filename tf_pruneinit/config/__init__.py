"""Defines experiments: options, their defaults and flags, and the tables of methods, models, datasets. No TensorFlow."""
