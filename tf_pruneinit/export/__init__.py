"""Writes networks to files, reads them, and prepares them for inference."""
