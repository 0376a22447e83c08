"""Nodes of a Ray cluster on loopback, each with its own scheduler and store, as `ray start` has.

    python ray_nodes.py CPUS...

A head without CPUs, which drivers attach to, and a node for each number of CPUs. Writes the address
and the ids of the nodes' schedulers as JSON, and ends everything when standard input closes.
"""

import json
import os
import shutil
import sys
import tempfile

os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0")


def main(cpus):
    from ray.cluster_utils import Cluster

    directory = tempfile.mkdtemp(prefix="rayn-", dir="/tmp")
    cluster = Cluster()
    common = dict(include_dashboard=False, temp_dir=directory, object_store_memory=200_000_000)
    try:
        cluster.add_node(num_cpus=0, node_ip_address="127.0.0.1", **common)
        common.pop("include_dashboard")
        nodes = [cluster.add_node(num_cpus=n, node_ip_address="127.0.0.1", **common) for n in cpus]
        schedulers = [node.all_processes["raylet"][0].process.pid for node in nodes]
        print(json.dumps([cluster.address, schedulers]), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(list(map(int, sys.argv[1:])))
