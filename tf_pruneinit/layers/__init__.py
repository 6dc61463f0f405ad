"""Keras layer classes of this package."""
