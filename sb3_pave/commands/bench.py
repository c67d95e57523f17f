"""``sb3-pave bench``: time PAVE's updates against those of its host."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from sb3_pave.benchmark import Report, Timing, Variant, Workload, benchmark, default_variants, rival_variants
from sb3_pave.commands.extras import naming_the_extra

_WATCHED = 1000  # updates over which a growth of memory says something
# The batch sizes of the paper's protocol
_BATCH_SIZES = {"td3": 256, "sac": 100}


def main(argv: Sequence[str]) -> None:
    """
    :param argv: the command's arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    with naming_the_extra(parser, "zoo"):
        from rich.console import Console
    if args.output is not None and args.output.exists() and not args.force:
        parser.error(f"{args.output} exists; --force overwrites it")
    workload = Workload(
        algo=args.algo,
        env_id=args.env,
        obs_dim=args.obs_dim,
        action_dim=args.action_dim,
        net_arch=None if args.net_arch is None else tuple(args.net_arch),
        batch_size=args.batch_size or _BATCH_SIZES.get(args.algo.lower(), 256),
        device=args.device,
        threads=args.threads,
        seed=args.seed,
    )
    # Progress on stderr, so that the table can be piped
    with Console(file=sys.stderr).status("starting") as status:
        try:
            report = benchmark(
                workload,
                _chosen(parser, args, default_variants(workload)),
                repetitions=args.repetitions,
                memory_updates=0 if args.no_memory else args.memory_updates,
                learn_steps=args.learn or 0,
                progress=status.update,
            )
        except ValueError as error:
            parser.error(str(error))
    Console(width=None if sys.stdout.isatty() else 127).print(table(report))
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


def table(report: Report) -> Any:
    """
    :param report: of a benchmark
    :return: a rich table
    """
    from rich.table import Table

    workload, machine = report.workload, report.machine
    sizes = workload.env_id or f"{workload.obs_dim}/{workload.action_dim}"
    result = Table(
        title=f"One gradient step of {workload.algo.upper()}, {sizes}, batch {workload.batch_size}",
        caption=(
            f"{machine['device']}, {machine['threads']} threads, PyTorch {machine['torch']}; medians (quartiles) of "
            f"{report.repetitions} interleaved rounds; floor: matrix products at {report.gflops:.0f} GFLOP/s"
        ),
    )
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
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    chosen = variants if names is None else [known[name] for name in names]
    return [*chosen, *(rival for rival in rivals if rival not in chosen)] if args.rivals else chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave bench",
        description="Time one gradient step of PAVE in each of its modes against the plain host.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--algo", default="td3", help="host algorithm")
    parser.add_argument("--env", help="environment whose transitions are replayed (default: random ones of these sizes:)")
    parser.add_argument("--obs-dim", type=_positive, default=17, help="observation size")
    parser.add_argument("--action-dim", type=_positive, default=6, help="action size")
    parser.add_argument("--net-arch", type=_positive, nargs="*", help="hidden layers (default: the host's own)")
    parser.add_argument("--batch-size", type=_positive, help="transitions of an update (default: 256; SAC: 100)")
    parser.add_argument("--device", default="cpu", help="of the networks")
    parser.add_argument("--threads", type=_positive, help="of PyTorch")
    parser.add_argument("--repetitions", type=_positive, default=50, help="timed rounds")
    parser.add_argument("--seed", type=int, default=0, help="of networks and batches")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="compare these only")
    parser.add_argument("--rivals", action="store_true", help="compare the actor-side methods, too")
    parser.add_argument("--learn", type=_positive, metavar="STEPS", help="time learn() too, three rounds of STEPS each")
    parser.add_argument(
        "--memory-updates", type=_positive, default=20, metavar="N", help="measure the memory of N updates, and its growth"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument("-o", "--output", type=pathlib.Path, metavar="FILE", help="write a JSON report")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value
