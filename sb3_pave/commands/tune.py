"""``sb3-pave tune``: search hyperparameters that are smooth and lose no return."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_pave.commands.extras import find_modules_here, naming_the_extra
from sb3_pave.commands.jobs import add_jobs, jobs_and_gpus
from sb3_pave.commands.options import value_of
from sb3_pave.commands.printing import print_frame

if TYPE_CHECKING:
    from sb3_pave.experiments.front import Trial
    from sb3_pave.experiments.search_specification import SearchSpecification

EXAMPLES = """examples:
  sb3-pave tune search.yml -o search --trials 40 -j 2
  sb3-pave tune search.yml -o search --trials 40 --keep-return 0.98 --pick smoothest
  sb3-pave tune search.yml -o search --export 17 --export-to tuned.yml

The same command goes on where it was; --trials counts those of before. --storage and --study-name are noted in FOLDER, and
later calls have to name the same."""

# Of a search alone: --export runs none
OF_A_SEARCH = ("trials", "keep_return", "sampler", "sampler_seed", "n_jobs", "backend", "gpus", "no_progress")

# What the optional extras bring
REQUIREMENTS = {"rl_zoo3", "joblib", "rich", "rliable", "pandas", "matplotlib", "yaml", "filelock", "optuna"}


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    _refuse_ignored(parser, args)
    find_modules_here()  # of the specification, as its runs do
    with naming_the_extra(parser, "experiments", REQUIREMENTS):
        _tune(parser, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave tune",
        description="Search hyperparameters: return up, sm down, over the seeds of a trial.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("specification", metavar="SPEC.yml", help="what to search")
    add("-o", "--output", required=True, metavar="FOLDER", help="where runs, study, table and picture go, or are")
    add("-n", "--trials", type=int, default=50, help="trials, with those of before (default: 50)")
    add(
        "--keep-return",
        type=float,
        metavar="SHARE",
        help="one objective, sm down, while this share of the plain agent's return is kept (0.98: at most 2 %% are lost)",
    )
    add("--sampler", default="tpe", choices=("tpe", "nsga2", "random"), help="of Optuna (default: tpe)")
    add("--sampler-seed", type=int, metavar="N", help="seed of the sampler (default: anew each time)")
    add("--storage", metavar="URL", help="of an Optuna storage, for many machines (default: a journal file in FOLDER)")
    add("--study-name", default="search", metavar="NAME", help="name of the study in the storage (default: search)")
    add_jobs(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--export", type=int, metavar="TRIAL", help="run nothing; write this trial as a YAML file of the zoo, and nothing else"
    )
    chosen.add_argument(
        "--pick",
        choices=("smoothest", "knee"),
        help="after the search, write that trial of the front as a YAML file of the zoo",
    )
    add("--export-to", metavar="FILE.yml", help="where to (default: ALGORITHM-trial-N.yml in FOLDER)")
    add("--overwrite", action="store_true", help="replace that file")
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command where nothing would be searched, or nobody could train with what is exported."""
    if args.trials < 1:
        parser.error("--trials must be at least 1")
    if args.export_to is not None and not args.export_to.endswith((".yml", ".yaml")):
        parser.error(
            f"--export-to takes a name that ends in .yml or .yaml: of any other, train -conf would import a module; got "
            f"{args.export_to}"
        )


def _refuse_ignored(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command where an argument would be ignored."""
    for option in ("--export-to", "--overwrite"):
        if value_of(args, option) and args.export is None and args.pick is None:
            parser.error(f"{option} goes with --export or --pick")
    for name in OF_A_SEARCH:
        if args.export is not None and getattr(args, name) != parser.get_default(name):
            parser.error(f"--export runs nothing: leave out --{name.replace('_', '-')}")


def _tune(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    import optuna

    from sb3_pave.evaluation.output_path import check_free, check_writable
    from sb3_pave.experiments import GridError, SpecificationError
    from sb3_pave.experiments.search import SearchError
    from sb3_pave.experiments.search_specification import SearchSpecification
    from sb3_pave.experiments.zoo_file import export, train_command

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if args.export_to is not None:
            if args.export is None:
                check_free([args.export_to], args.overwrite, "--export-to")  # rather than after hours
            check_writable([Path(args.export_to)])
        specification = SearchSpecification.load(args.specification)
        searched, trial = _search(args, specification) if args.export is None else _find(args, specification)
        if trial is None:
            return
        default = Path(args.output) / f"{searched['algorithm']}-trial-{trial['number']}.yml"
        path = Path(args.export_to or default)
        export(searched, trial, specification.method_runs, path, args.overwrite)
    except (SpecificationError, GridError, SearchError, ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; the same command goes on where it was\n")
    print(f"Wrote trial {trial['number']}: {train_command(specification.method_runs[0], path)}")


def _find(args: argparse.Namespace, specification: SearchSpecification) -> tuple[dict[str, Any], Trial]:
    """The search as it is, and the trial of ``--export``."""
    from sb3_pave.experiments.front import find_trial
    from sb3_pave.experiments.search import search_so_far

    searched = search_so_far(specification, args.output, args.storage, args.study_name)
    return searched, find_trial(searched["trials"], args.export)


def _search(args: argparse.Namespace, specification: SearchSpecification) -> tuple[dict[str, Any], Trial | None]:
    """Search on, save and print what was found; with the trial of ``--pick``."""
    from sb3_pave.experiments.front import pick
    from sb3_pave.experiments.search import search
    from sb3_pave.experiments.search_files import front_caption, front_table, save_outcome

    n_jobs, gpus = jobs_and_gpus(args)
    searched = search(
        specification,
        args.output,
        args.trials,
        keep_return=args.keep_return,
        storage=args.storage,
        study_name=args.study_name,
        sampler=args.sampler,
        sampler_seed=args.sampler_seed,
        n_jobs=n_jobs,
        backend=args.backend,
        gpus=gpus,
        progress=not args.no_progress,
    )
    files = save_outcome(searched, args.output)
    print_frame(front_table(searched), front_caption(searched))
    print("Saved", ", ".join(str(file) for file in files))
    return searched, None if args.pick is None else pick(searched, args.pick)
