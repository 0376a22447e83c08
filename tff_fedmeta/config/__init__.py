"""What a user may set, checked. Imports no TensorFlow."""

from tff_fedmeta.config.experiment import AGGREGATORS, RUNTIMES, ExperimentConfig

__all__ = ["AGGREGATORS", "RUNTIMES", "ExperimentConfig"]
