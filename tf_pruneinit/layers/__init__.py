"""Keras layer classes of this package, and all that it knows of Keras' own."""
