"""Recorded searches for default hyperparameters, each beside the log of its trials."""
