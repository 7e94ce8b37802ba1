"""A cluster of a head without CPUs and two nodes, as a process of its own.

``python two_nodes.py CPUS`` obeys the lines of its input: ``kill`` ends one node with all its
processes, ``add`` starts another one, the end of the input ends the cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys


class TwoNodes:
    """The process, and what it is told."""

    def __init__(self, cpus: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(cpus)],
            env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.address = self._said("address")

    def do(self, word: str) -> None:
        """Have it do something, and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self._said(f"done {word}")

    def close(self) -> None:
        """End the cluster."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _said(self, word: str) -> str:
        """The rest of the line that begins with a word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"the cluster ended before it said {word!r}")


def main(cpus: int) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=cpus) for _ in range(2)]
    print("address", cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        elif line.strip() == "add":
            nodes.append(cluster.add_node(num_cpus=cpus))
        else:
            raise ValueError(f"{line!r} is neither kill nor add")
        print("done", line.strip(), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
