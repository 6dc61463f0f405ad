"""Files, locks, signals, console, devices and workers."""
