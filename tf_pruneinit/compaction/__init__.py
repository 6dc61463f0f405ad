"""Builds smaller networks, without dead channels."""
