"""A cluster of a head without CPUs and two nodes of one CPU; obeys the lines of its input.

`kill` ends one node with all its processes, `add` starts another one, an empty line or the end of
the input ends the cluster.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    print("address", cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        elif line.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=1))
        else:
            break
        print("done", line.strip(), flush=True)
    cluster.shutdown()
