"""One voter per file; each looks at a curve from one side and says why it votes as it does."""
