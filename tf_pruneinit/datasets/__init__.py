"""Loads labeled images, augments them, and samples each class equally."""
