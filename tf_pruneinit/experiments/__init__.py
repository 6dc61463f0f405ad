"""Runs one experiment: the recipe, the run directory, the result."""
