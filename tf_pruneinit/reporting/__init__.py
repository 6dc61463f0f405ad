"""Turns runs into statistics, findings, figures, tables and one page. No TensorFlow."""
