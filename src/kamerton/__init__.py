"""Kamerton: from a folder of raw recordings to a served text-to-speech voice."""

__version__ = "0.1.0"
