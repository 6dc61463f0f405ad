"""Changes masks in training: one file for each rule; the table is `registry.IN_TRAINING`."""
