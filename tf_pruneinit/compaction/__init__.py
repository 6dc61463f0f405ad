"""Smaller networks without dead channels."""
