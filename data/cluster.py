"""A list of independent tasks on a Ray cluster (extra `cluster`); Ray is imported when asked for and not before.

On one machine nothing needs to be started.  On several, with the same version of sparsescope installed on each:

    once       ray get-auth-token --generate                    # copy ~/.ray/auth_token to every machine
    head       RAY_AUTH_MODE=token ray start --head --port=6379
    others     RAY_AUTH_MODE=token ray start --address=HEAD:6379
    anywhere   export RAY_AUTH_MODE=token RAY_ADDRESS=HEAD:6379
               sparsescope toy sweep --engine ray --grid feature_probability=1,0.3,0.1
               sparsescope probe sparsity --engine ray      # also experts, kinds, rank and memory
    at the end ray stop                                         # on every machine

Model and text are read by the process that starts the work, which is also the only one that writes the run folder; the
model travels to the workers through Ray's object store, once a machine.  Who reaches Ray's ports with the token can
run anything there: keep the cluster in a network of your own.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

RETRIES = 3
"""Times that a task is begun anew after its worker died."""
AHEAD = 2
"""Tasks that wait for each processor, so that none idles; more would only fill memory."""


def gathered(
    function: Callable[[Any, Task], Result], tasks: Iterable[Task], *, shared: Any = None, gpus: float = 0
) -> Iterator[tuple[Task, Result]]:
    """Each task with `function(shared, task)`, in the order of the tasks and each exactly once.

    `shared` is sent once; `gpus` are those that a task needs.  A task whose worker is killed is done again on another
    one.  Uses the cluster that `ray.init()` has connected to or finds (`RAY_ADDRESS`), else this machine's processors.
    ValueError if Ray is not installed or a task was lost too often; a task's own error passes through.
    """
    ray = _connected()
    remote = ray.remote(function).options(max_retries=RETRIES, num_gpus=gpus)
    sent, under_way = ray.put(shared), deque[tuple[Task, Any]]()
    at_once = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        for task in tasks:
            under_way.append((task, remote.remote(sent, task)))
            if len(under_way) >= at_once:
                yield _finished(ray, *under_way.popleft())
        while under_way:
            yield _finished(ray, *under_way.popleft())
    finally:
        for _, reference in under_way:
            ray.cancel(reference)


def _connected() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "engine='ray' needs Ray, which is not installed; pip install 'sparsescope[cluster]'"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return ray


def _finished(ray: Any, task: Task, reference: Any) -> tuple[Task, Any]:
    try:
        return task, ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        lost = f"the cluster lost a task {RETRIES + 1} times ({str(error).splitlines()[0]})"
        raise ValueError(f"{lost}; look at its machines' memory") from error
