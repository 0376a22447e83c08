"""The algorithms: one file each holds the update and the builder of its learning process."""
