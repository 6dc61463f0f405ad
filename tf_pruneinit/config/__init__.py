"""What an experiment is: options, their defaults, flags, and the registry of methods, models and datasets. No TensorFlow."""
