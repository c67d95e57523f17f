"""Target networks that follow theirs, all parameters in one go; equals SB3's ``polyak_update``."""

from collections.abc import Iterable

import torch as th

from sb3_pave.fast.pieces import in_pieces


@th.no_grad()
def follow(parameters: Iterable[th.Tensor], targets: Iterable[th.Tensor], tau: float) -> None:
    """
    ``target ← (1 - τ) target + τ parameter``, in place; each element is computed as ``polyak_update`` computes it.

    :param parameters: of the networks
    :param targets: likewise, of their target networks
    :param tau: ``τ``
    """
    sources, followers = [p.data for p in parameters], [t.data for t in targets]
    if len(sources) != len(followers):
        raise ValueError(f"{len(sources)} tensors can't be followed by {len(followers)}.")
    if not sources:
        return
    if sources[0].is_cuda:
        sources, followers = in_pieces(sources, followers)
    th._foreach_mul_(followers, 1 - tau)
    th._foreach_add_(followers, sources, alpha=tau)
