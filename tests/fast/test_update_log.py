"""Losses of many gradient steps: each is kept, and takes little memory."""

import torch as th

from sb3_pave.fast import update_log
from sb3_pave.fast.update_log import UpdateLog


def test_a_long_call_keeps_each_value_in_its_place_and_few_tensors(monkeypatch):
    monkeypatch.setattr(update_log, "_TOGETHER", 4)
    log = UpdateLog()
    for step in range(11):
        log.add(critic_loss=th.tensor(float(step)), td_loss=th.tensor(100.0 + step))
        if step % 2 == 0:
            log.add(actor_loss=th.tensor(-float(step)))
    assert len(log._rows) == 2 and sum(map(len, log._values.values())) <= 3 * 4
    assert log.read() == {
        "critic_loss": [float(step) for step in range(11)],
        "td_loss": [100.0 + step for step in range(11)],
        "actor_loss": [-float(step) for step in range(0, 11, 2)],
    }


def test_what_a_step_logged_stays_when_the_next_one_writes_into_the_same_tensor():
    log, values = UpdateLog(), th.tensor([1.0, 2.0])
    log.add_all(("critic_loss", "td_loss"), values)
    values.fill_(3.0)
    assert log.read() == {"critic_loss": [1.0], "td_loss": [2.0]}
