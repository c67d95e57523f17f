"""Engines that supply processes: joblib's own, a dask cluster, a Ray cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import joblib

# Engines, and the package of each
BACKENDS = {"threading": "joblib", "loky": "joblib", "dask": "distributed", "ray": "ray"}


def check_backend(backend: str, address: str | None = None) -> None:
    """
    Before anything is made: the engine itself starts with the first runs.

    :param backend: the name of one
    :param address: address of a cluster, if there is one
    :raises ValueError: if the backend is not known, or takes no address
    :raises ModuleNotFoundError: if a package is missing; the message says what to install
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if address is not None and backend not in ("dask", "ray"):
        raise ValueError(f"only dask and ray have an address; the backend is {backend}")
    for package, extra in (("joblib", "experiments"), (BACKENDS[backend], backend)):
        if importlib.util.find_spec(package) is None:
            message = f'The backend {backend} needs {package}: pip install "sb3-pave[{extra}]"'
            raise ModuleNotFoundError(message, name=package)


@contextmanager
def parallel(backend: str, n_jobs: int, address: str | None = None) -> Iterator[joblib.Parallel]:
    """
    :param backend: one of ``BACKENDS``, see :func:`check_backend`
    :param n_jobs: jobs at a time, also of a cluster that is started here; a cluster that is there uses all of its workers
    :param address: address of a dask scheduler or a Ray cluster; None starts one on this machine
    :return: what runs the jobs
    """
    import joblib

    if backend == "dask":
        import distributed

        local: dict[str, Any] = {} if address else {"n_workers": n_jobs, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.Client(address, **local) as client, joblib.parallel_config("dask", client=client):
            yield joblib.Parallel(n_jobs=-1, batch_size=1)
    elif backend == "ray":
        import ray
        from ray.util.joblib import register_ray

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
