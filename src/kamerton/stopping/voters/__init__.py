"""The voters: each looks at one thing and says stop, go on, or nothing."""
