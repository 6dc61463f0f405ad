"""Files, locks, signals, the console, devices and workers: what the rest of the package stands on."""
