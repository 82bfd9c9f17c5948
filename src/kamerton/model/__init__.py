"""Tacotron 2, its losses and the exported voice."""
