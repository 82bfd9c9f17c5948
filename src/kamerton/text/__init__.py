"""Text normalisation and symbols."""
