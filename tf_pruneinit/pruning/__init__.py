"""Prunes: masks, scores, selection of weights, connectivity, ablations."""
