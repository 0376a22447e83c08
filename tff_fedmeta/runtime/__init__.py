"""Where TFF's computations run. Imports nothing else of this package, knows nothing of learning."""

from tff_fedmeta.runtime.local import local_runtime, quiet_tensorflow, usable_cores

__all__ = ["local_runtime", "quiet_tensorflow", "usable_cores"]
