"""What is timed: networks and batches, and the ways to do a gradient step on them."""

from dataclasses import dataclass, field
from typing import Any

import torch as th

from sb3_pave.baselines import METHODS


@dataclass(frozen=True)
class Workload:
    """
    What is timed.

    :param algo: the host's name: td3, sac, ...
    :param env_id: a Gymnasium environment; None: random transitions of the two sizes below
    :param obs_dim: observation size
    :param action_dim: action size
    :param net_arch: hidden layers of actor and critics; None: the host's own
    :param batch_size: transitions of a gradient step
    :param device: of the networks
    :param threads: of PyTorch; None: as they are
    :param seed: of networks and batches
    """

    algo: str = "td3"
    env_id: str | None = None
    obs_dim: int = 17
    action_dim: int = 6
    net_arch: tuple[int, ...] | None = None
    batch_size: int = 256
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """
    One way to do a gradient step.

    :param name: its row in the table
    :param pave: whether it is PAVE; else the plain host
    :param kwargs: constructor arguments
    :param closed_form: False: the field by the autograd definition
    :param method: an actor-side method around it; None: there is none
    """

    name: str
    pave: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    closed_form: bool = True
    method: str | None = None


HOST = Variant("host", pave=False)
_NO_TERMS = {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}


def default_variants(workload: Workload) -> list[Variant]:
    """The host, the definition, and every mode that this machine can run."""
    quarter = {"pave_batch_size": max(1, workload.batch_size // 4)}
    fused = {"policy_kwargs": {"optimizer_kwargs": {"fused": True}}}
    return [
        HOST,
        Variant("autograd", closed_form=False),
        Variant("pave"),
        Variant("pave, fused Adam", kwargs=fused),
        Variant("compiled", kwargs={"compile": True}),
        Variant("quarter batch", kwargs=quarter),
        Variant("quarter batch, compiled", kwargs={**quarter, "compile": True}),
        *_on_cuda(workload),
    ]


def rival_variants() -> list[Variant]:
    """The actor-side methods around the host, with their default weights, and DAMPER around PAVE."""
    alone = [Variant(method, pave=False, method=method) for method in METHODS]
    return [*alone, Variant("damper and pave", method="damper")]


def _on_cuda(workload: Workload) -> list[Variant]:
    if th.device(workload.device).type != "cuda":
        return []
    return [
        Variant("host, graphs", kwargs={**_NO_TERMS, "cuda_graph": True}),
        Variant("graphs", kwargs={"cuda_graph": True}),
        Variant("graphs, compiled", kwargs={"cuda_graph": True, "compile": True}),
    ]


def has_terms(variant: Variant) -> bool:
    """
    Whether its updates have PAVE's terms.

    :param variant: host, PAVE or a rival
    """
    return variant.pave and not _NO_TERMS.items() <= variant.kwargs.items()
