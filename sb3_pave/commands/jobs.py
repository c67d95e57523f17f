"""Options of the commands that start runs, many at a time."""

from __future__ import annotations

import argparse


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """
    Add ``--n-jobs``, ``--backend``, ``--gpus`` and ``--no-progress``.

    :param parser: of the command
    """
    add = parser.add_argument
    add("-j", "--n-jobs", type=int, help="runs at a time (default: 1, or one on each of --gpus)")
    add("--backend", default="threading", help="threading, loky, dask or ray (default: threading)")
    add("--gpus", default="", metavar="0,1", help="GPUs, as CUDA_VISIBLE_DEVICES names them: one run on each")
    add("--no-progress", action="store_true", help="print nothing while it works")


def jobs_and_gpus(args: argparse.Namespace) -> tuple[int, list[str]]:
    """
    :param args: of such a command
    :return: how many runs at a time, and the GPUs' names
    """
    gpus = [gpu.strip() for gpu in args.gpus.split(",") if gpu.strip()]
    return (len(gpus) or 1) if args.n_jobs is None else args.n_jobs, gpus
