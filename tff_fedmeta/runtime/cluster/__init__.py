"""An engine over the processes of a cluster, whatever system starts and connects these."""
