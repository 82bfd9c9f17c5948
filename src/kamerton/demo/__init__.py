"""The demo: its corpus, its truth, its toy recogniser and what they are scored by."""
