"""The compiled training step, the loop around it, and what is saved of it."""
