"""Decoding, resampling, loudness, mel spectrograms and voice activity, in numpy."""
