"""The search for hyperparameters and the processes it drives."""
