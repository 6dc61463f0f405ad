"""From runs to statistics, findings, figures, tables and one page. No TensorFlow."""
