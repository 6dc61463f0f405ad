"""Builds the networks."""
