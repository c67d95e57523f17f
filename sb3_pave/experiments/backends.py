"""Engines that supply processes: joblib's own, a dask cluster, a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import joblib

BACKENDS = ("threading", "loky", "dask", "ray")


@contextmanager
def parallel(backend: str, n_jobs: int, address: str | None = None) -> Iterator[joblib.Parallel]:
    """
    :param backend: one of ``BACKENDS``
    :param n_jobs: jobs at a time, also of a cluster that is started here; a cluster that is there uses all of its workers
    :param address: address of a dask scheduler or a Ray cluster; None starts one on this machine
    :return: what runs the jobs
    :raises ValueError: if the backend is not known, or takes no address
    :raises ModuleNotFoundError: if a package is missing; the message says what to install
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if address is not None and backend not in ("dask", "ray"):
        raise ValueError(f"only dask and ray have an address; the backend is {backend}")
    try:
        import joblib

        if backend == "dask":
            import distributed
        elif backend == "ray":
            import ray
            from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        extra = backend if backend in ("dask", "ray") and error.name != "joblib" else "experiments"
        message = f'The backend {backend} needs {error.name}: pip install "sb3-pave[{extra}]"'
        raise ModuleNotFoundError(message, name=error.name) from error
    if backend == "dask":
        local: dict[str, Any] = {} if address else {"n_workers": n_jobs, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.Client(address, **local) as client, joblib.parallel_config("dask", client=client):
            yield joblib.Parallel(n_jobs=-1, batch_size=1)
    elif backend == "ray":
        local = {} if address else {"num_cpus": n_jobs, "include_dashboard": False}
        started = not ray.is_initialized()
        if started:
            ray.init(address=address, log_to_driver=False, **local)
        register_ray()
        try:
            with joblib.parallel_config("ray"):
                yield joblib.Parallel(n_jobs=-1, batch_size=1)
        finally:
            if started:
                ray.shutdown()
    else:
        yield joblib.Parallel(n_jobs=n_jobs, backend=backend, batch_size=1)
