"""Figures and self-contained HTML pages, one look for all of them."""
