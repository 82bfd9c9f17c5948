"""How well a voice speaks: alignment, spectral, perceptual and intelligibility measures."""
