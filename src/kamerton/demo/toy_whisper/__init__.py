"""The toy recogniser: Whisper's architecture and code path at a thousandth of its size.

It knows one synthetic voice and 48 words, and exists so that the demo and the tests can run the
real transcription code offline in seconds. Trained by ``python -m kamerton.demo.toy_whisper``,
examined by ``python -m kamerton.demo.toy_whisper.evaluate``.
"""
