"""``sb3-pave bench``: time PAVE's updates against those of its host."""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from sb3_pave.benchmark import (
    DifferentLosses,
    Report,
    Timing,
    Variant,
    Workload,
    benchmark,
    default_variants,
    rival_variants,
)
from sb3_pave.commands.device import device
from sb3_pave.commands.extras import hint_of_packages, import_gym_packages, naming_the_extra
from sb3_pave.commands.printing import print_table
from sb3_pave.evaluation.output_path import check_free, check_writable

_MEMORY_UPDATES = 20
_WATCHED = 1000  # updates over which a growth of memory says something
# The batch sizes of the paper's protocol
_BATCH_SIZES = {"td3": 256, "sac": 100}


def main(argv: Sequence[str]) -> None:
    """
    :param argv: the command's arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _refuse_ignored(parser, args)
    with naming_the_extra(parser, "zoo"):
        from rich.console import Console
    if args.output is not None:
        _check_output(parser, args.output, args.overwrite)
    import_gym_packages(parser, args.gym_packages)
    workload = Workload(
        algo=args.algo,
        env_id=args.env,
        obs_dim=args.obs_dim or Workload.obs_dim,
        action_dim=args.action_dim or Workload.action_dim,
        net_arch=None if args.net_arch is None else tuple(args.net_arch),
        batch_size=args.batch_size or _BATCH_SIZES.get(args.algo.lower(), 256),
        device=args.device,
        threads=args.threads,
        seed=args.seed,
        gym_packages=tuple(args.gym_packages),
    )
    # Progress on stderr, so that the table can be piped
    with Console(file=sys.stderr).status("starting") as status:
        try:
            report = benchmark(
                workload,
                _chosen(parser, args, default_variants(workload)),
                repetitions=args.repetitions,
                memory_updates=0 if args.no_memory else args.memory_updates or _MEMORY_UPDATES,
                learn_steps=args.learn or 0,
                progress=status.update,
            )
        except (ValueError, DifferentLosses) as error:
            parser.exit(1, f"{parser.prog}: {error}{hint_of_packages(args.env)}\n")
    console = Console(width=None if sys.stdout.isatty() else 127)
    print_table(console, table(report))
    console.print(caption(report), highlight=False, markup=False)  # a table's own would be as narrow as the table
    if args.output is not None:
        args.output.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


def table(report: Report) -> Any:
    """
    :param report: of a benchmark
    :return: a rich table
    """
    from rich.table import Table

    workload = report.workload
    sizes = workload.env_id or f"{workload.obs_dim}/{workload.action_dim}"
    result = Table(title=f"One gradient step of {workload.algo.upper()}, {sizes}, batch {workload.batch_size}")
    columns = ["variant", "ms", "ratio to host", "floor ms", "ratio to floor", "first update s", "peak MB"]
    watched = report.memory_updates >= _WATCHED
    columns += ["growth MB"] if watched else []
    learned = any(timing.env_steps_per_s for timing in report.timings)
    for column in columns + (["env steps/s"] if learned else []):
        result.add_column(column, justify="left" if column == "variant" else "right")
    for timing in report.timings:
        cells = [timing.variant, _spread(timing.ms, 2), _spread(timing.ratio, 2), *_floor(timing)]
        cells += [f"{timing.first_update_s:.1f}", _or_dash(timing.peak_memory_mb, 0)]
        cells += [_or_dash(timing.memory_growth_mb, 1)] if watched else []
        if learned:
            cells.append("-" if timing.env_steps_per_s is None else _spread(timing.env_steps_per_s, 0))
        result.add_row(*cells)
    return result


def caption(report: Report) -> str:
    """
    :param report: of a benchmark
    :return: what its table shows
    """
    machine = report.machine
    return (
        f"{machine['device']}, {machine['threads']} threads, PyTorch {machine['torch']}; medians (quartiles) of "
        f"{report.repetitions} interleaved rounds; floor: matrix products at {report.gflops:.0f} GFLOP/s"
    )


def _refuse_ignored(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command where an argument would be ignored."""
    if args.no_memory and args.memory_updates is not None:
        parser.error("--no-memory leaves out what --memory-updates asks for")
    if args.env is not None and (args.obs_dim or args.action_dim):
        parser.error("--env brings its own sizes: leave out --obs-dim and --action-dim")


def _check_output(parser: argparse.ArgumentParser, path: pathlib.Path, overwrite: bool) -> None:
    """Ends the command before the work if the file can't be written after it."""
    if os.path.isdir(path):
        parser.error(f"{path} is a folder: name the file to write")
    try:
        check_free([path], overwrite)
        check_writable([path])
    except OSError as error:
        parser.error(str(error))


def _floor(timing: Timing) -> list[str]:
    ratio = None if timing.floor_ms is None else timing.ms[1] / timing.floor_ms
    return [_or_dash(timing.floor_ms, 2), _or_dash(ratio, 2)]


def _spread(quartiles: tuple[float, float, float], digits: int) -> str:
    low, middle, high = quartiles
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _or_dash(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _chosen(parser: argparse.ArgumentParser, args: argparse.Namespace, variants: list[Variant]) -> list[Variant]:
    rivals, names = rival_variants(), args.variants
    known = {variant.name: variant for variant in [*variants, *rivals]}
    unknown = set(names or []) - set(known)
    if unknown:
        parser.error(f"no such variant: {_quoted(sorted(unknown))}; there are: {_quoted(known)}")
    chosen = variants if names is None else [known[name] for name in names]
    return [*chosen, *(rival for rival in rivals if rival not in chosen)] if args.rivals else chosen


def _quoted(names: Iterable[str]) -> str:
    """As a shell takes them: some have commas and spaces."""
    return ", ".join(f'"{name}"' for name in names)


def _epilog() -> str:
    anywhere, on_gpu = ([v.name for v in default_variants(Workload(device=device))] for device in ("cpu", "cuda"))
    groups = {
        "--variants takes": anywhere,
        "on a GPU also": [name for name in on_gpu if name not in anywhere],
        "and what --rivals adds": [variant.name for variant in rival_variants()],
    }
    return "; ".join(f"{group} {_quoted(names)}" for group, names in groups.items()) + "."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave bench",
        description="Time one gradient step of PAVE in each of its modes against the plain host.",
        epilog=_epilog(),
    )
    add = parser.add_argument
    add("--algo", default="td3", help="host algorithm (default: td3)")
    add(
        "--env",
        metavar="ID",
        help="environment whose transitions are replayed (default: random ones of --obs-dim and --action-dim)",
    )
    add("--obs-dim", type=_positive, metavar="N", help="observation size (default: 17)")
    add("--action-dim", type=_positive, metavar="N", help="action size (default: 6)")
    add("--gym-packages", nargs="+", default=[], help="packages to import that register environments")
    add("--net-arch", type=_positive, nargs="*", metavar="N", help="hidden layers (default: the host's own)")
    add("--batch-size", type=_positive, metavar="N", help="transitions of an update (default: 256; SAC: 100)")
    add("--device", type=device, default="cpu", help="of the networks (default: cpu)")
    add("--threads", type=_positive, metavar="N", help="of PyTorch (default: PyTorch's own choice)")
    add("--repetitions", type=_positive, default=50, metavar="N", help="timed rounds (default: 50)")
    add("--seed", type=int, default=0, help="of networks and batches (default: 0)")
    add("--variants", nargs="+", metavar="NAME", help="compare these only, see below; quote them (default: all)")
    add("--rivals", action="store_true", help="compare the actor-side methods, too")
    add("--learn", type=_positive, metavar="STEPS", help="time learn() too, three rounds of STEPS each")
    add(
        "--memory-updates",
        type=_positive,
        metavar="N",
        help="measure the memory of N updates, from 1000 on also its growth (default: 20)",
    )
    add("--no-memory", action="store_true", help="leave the memory out")
    add("-o", "--output", type=pathlib.Path, metavar="FILE", help="write a JSON report")
    add("--overwrite", action="store_true", help="replace FILE")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value
