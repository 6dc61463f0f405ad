"""Runs many experiments: plans, jobs and launchers."""
