"""Trains: the compiled step, the loop around it, and what is saved of it."""
