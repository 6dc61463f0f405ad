"""Methods that change masks in training."""
