"""Whisper's two implementations behind one protocol."""
