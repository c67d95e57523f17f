"""The argument ``--device``."""

import argparse


def device(text: str) -> str:
    """
    What argparse makes of a device's name: an error where this machine has none of it. SB3 would take the CPU.

    :param text: "auto", or as PyTorch names devices
    """
    import torch as th

    if text == "auto":
        return text
    try:
        found = th.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"PyTorch knows no device {text!r}; cpu and cuda, for example") from None
    try:
        th.zeros(1, device=found).item()
    except Exception:  # whatever the driver, or PyTorch without it, makes of it
        raise argparse.ArgumentTypeError(f"PyTorch finds no {text} on this machine") from None
    return text
