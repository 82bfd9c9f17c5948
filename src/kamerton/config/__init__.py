"""The schema of params.yaml, its loading and its search space."""
