"""Synthetic data, made on the spot, for runs without the real data."""
