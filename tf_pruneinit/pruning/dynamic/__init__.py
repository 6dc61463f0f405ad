"""Methods that change masks in training; one file a rule."""
