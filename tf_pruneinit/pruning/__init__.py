"""Masks, scores, the selection of weights, connectivity and ablations."""
