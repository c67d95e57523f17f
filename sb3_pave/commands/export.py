"""``sb3-pave export``: a trained policy for a robot, as ONNX."""

from __future__ import annotations

import argparse

from sb3_pave.evaluation.agents import AgentError, load_model
from sb3_pave.export import ExportError, export_onnx


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = argparse.ArgumentParser(
        prog="sb3-pave export",
        description="Write the deterministic policy of a saved model as ONNX: raw observation in, environment-scale action "
        "out. The graph is compared with model.predict before it is written.",
    )
    parser.add_argument("model", metavar="model.zip", help="a model saved by SB3 or sb3-pave")
    parser.add_argument("output", metavar="policy.onnx", help="the file to write")
    parser.add_argument("--vec-normalize", metavar="FILE", help="the VecNormalize statistics it was trained with")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    try:
        model = load_model(args.model, device="cpu")
        difference = export_onnx(model, args.output, args.vec_normalize, args.overwrite)
    except (AgentError, ExportError, FileExistsError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"Saved {args.output}; its actions differ from model.predict by at most {difference:.1e}")
