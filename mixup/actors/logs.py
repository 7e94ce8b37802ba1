"""The last log lines of actors, wherever they run: what a failed run has to show."""

from __future__ import annotations

from pathlib import Path

_TAIL_BYTES = 16_384
_TIMEOUT_S = 20.0
_OF_RAY = (":job_id:", ":actor_name:", ":task_name:")


def last_lines(title: str, lines: int = 12) -> str:
    """The last lines that processes wrote whose title holds a text, node by node.

    Args:
        title: Part of the process title that Ray gives an actor's process.
        lines: How many of each log file.

    Returns:
        The lines, each file's below its name; a statement of what was found where there are none.
    """
    import ray
    from ray.exceptions import GetTimeoutError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(node_lines)
    running = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(title, lines)
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        found = [text for text in ray.get(running, timeout=_TIMEOUT_S) if text]
    except GetTimeoutError:
        return f"(the nodes did not answer within {_TIMEOUT_S:g} s)"
    return "\n".join(found) or f"(no process of {title} runs)"


def node_lines(title: str, lines: int) -> str:
    """The last log lines of this node's processes whose title holds a text; runs in a worker."""
    import psutil
    from ray._private import worker

    node = worker._global_node
    folder = Path(node.get_logs_dir_path()) if node else Path()
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if title in " ".join(process.info["cmdline"] or ()):
            for path in sorted(folder.glob(f"worker-*-{process.info['pid']}.*")):
                if tail := tail_of(path, lines):
                    found.append(f"{path.name}:\n{tail}")
    return "\n".join(found)


def tail_of(path: Path, lines: int) -> str:
    """The last lines of a text file, without reading all of it."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = stream.read().decode("utf-8", "replace")
    said = [line for line in text.splitlines() if line.strip() and not line.startswith(_OF_RAY)]
    return "\n".join(said[-lines:])
