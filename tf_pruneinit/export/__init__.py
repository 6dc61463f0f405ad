"""Networks as files, and for inference only."""
