"""One run, from data to files. Nothing else in this package imports it."""
