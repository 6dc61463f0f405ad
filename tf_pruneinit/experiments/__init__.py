"""One run: recipe, run directory, result."""
