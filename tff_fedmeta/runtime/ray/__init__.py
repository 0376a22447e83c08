"""Ray as the cluster: the only package that imports it, and inside of functions alone."""
