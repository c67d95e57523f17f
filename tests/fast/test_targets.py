"""Targets that follow in one go are SB3's, bit for bit."""

import copy

import pytest
import torch as th
from stable_baselines3.common.utils import polyak_update
from torch import nn

from sb3_pave.fast.targets import follow


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("tau", [0.005, 0.3, 1.0])
def test_each_bit_is_polyak_updates(tau, dtype):
    network = nn.Sequential(nn.Linear(17, 33), nn.BatchNorm1d(33), nn.Linear(33, 1)).to(dtype)
    ours = nn.Sequential(nn.Linear(17, 33), nn.BatchNorm1d(33), nn.Linear(33, 1)).to(dtype)
    theirs = copy.deepcopy(ours)
    for _ in range(5):
        follow(network.parameters(), ours.parameters(), tau)
        polyak_update(network.parameters(), theirs.parameters(), tau)
        assert all(map(th.equal, ours.parameters(), theirs.parameters()))
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_nothing_to_follow_is_no_error_and_a_missing_target_is_one():
    follow([], [], 0.5)
    with pytest.raises(ValueError, match="2 tensors can't be followed by 1"):
        follow([th.ones(1), th.ones(1)], [th.ones(1)], 0.5)
