"""
How much each of PAVE's terms weighs in the gradient that trains the critics, at the end of a run of RL Zoo that was saved with
its replay buffer:

    sb3-pave train --algo pave_sac --env Hopper-v5 -n 14000 --seed 1 -f runs --save-replay-buffer
    python -m examples.gradient_shares pave_sac Hopper-v5 runs/pave_sac/Hopper-v5_1
"""

import json
import sys
from pathlib import Path
from statistics import median

import torch as th

import sb3_pave
from sb3_pave.algorithms.execution import Execution
from sb3_pave.method.terms import evaluate_terms

N_BATCHES = 50


def gradient_shares(model, batch_size: int) -> dict[str, float]:
    """
    The length of the gradient of each weighted term, relative to that of the TD loss: medians over replayed batches.

    :param model: a PAVE_TD3 or PAVE_SAC with transitions in its replay buffer
    :param batch_size: of each batch
    """
    parameters = list(model.critic.parameters())

    def length(loss: th.Tensor) -> float:
        gradients = th.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        return float(th.cat([g.flatten() for g in gradients if g is not None]).norm())

    shares: dict[str, list[float]] = {"mpr": [], "vfc": [], "curv": []}
    for _ in range(N_BATCHES):
        replay_data, successor = model._sample(batch_size)
        target = model._td_target(Execution(model), replay_data, *_entropy_coefficient(model))
        td_loss = length(model._td_loss(model.critic(replay_data.observations, replay_data.actions), target))
        terms = model._critic_terms(replay_data, successor, target)
        for i, of_term in enumerate(shares.values()):
            alone = [coef if i == j else 0.0 for j, coef in enumerate(terms.coefs)]
            of_term.append(length(evaluate_terms(model.critic, terms._replace(coefs=alone))[0]) / td_loss)
    return {name: median(of_term) for name, of_term in shares.items()}


def _entropy_coefficient(model) -> list[th.Tensor]:
    if not hasattr(model, "ent_coef"):
        return []
    return [model.ent_coef_tensor if model.ent_coef_optimizer is None else model.log_ent_coef.detach().exp()]


def main(algorithm: str, env_id: str, folder: str) -> None:
    """
    :param algorithm: pave_td3 or pave_sac
    :param env_id: the environment
    :param folder: of the run
    """
    cls = {"pave_td3": sb3_pave.PAVE_TD3, "pave_sac": sb3_pave.PAVE_SAC}[algorithm]
    model = cls.load(Path(folder) / f"{env_id}.zip")
    model.load_replay_buffer(Path(folder) / "replay_buffer.pkl")
    print(json.dumps(gradient_shares(model, model.batch_size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
