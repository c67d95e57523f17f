"""One claim at a time on a folder, whatever becomes of its holder."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from sb3_pave.experiments import claims
from sb3_pave.experiments.claims import Claim, ClaimLost, is_claimed


def write_claim(folder, number=1, age=0.0, **content):
    """A claim of somebody else."""
    path = folder / f"claim-{number}"
    path.write_text(json.dumps(content))
    os.utime(path, times=(time.time() - age,) * 2)
    return path


def test_a_claim_excludes_others_until_it_is_released(tmp_path):
    claim = Claim.acquire(tmp_path)
    assert claim is not None and is_claimed(tmp_path)
    assert Claim.acquire(tmp_path) is None
    claim.release()
    assert not is_claimed(tmp_path) and not list(tmp_path.iterdir())
    assert Claim.acquire(tmp_path) is not None


def test_of_many_that_try_at_once_one_gets_it(tmp_path):
    """Also where they take over a dead one."""
    for folder, stale in ((tmp_path / "free", False), (tmp_path / "stale", True)):
        folder.mkdir()
        if stale:
            write_claim(folder, host="elsewhere", pid=1, started="0", age=1000)
        barrier, got = threading.Barrier(8), []

        def attempt(folder=folder, barrier=barrier, got=got):
            barrier.wait()
            got.append(Claim.acquire(folder))

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(claim is not None for claim in got) == 1


def test_a_claim_of_another_machine_is_taken_over_when_it_was_not_renewed(tmp_path):
    path = write_claim(tmp_path, host="elsewhere", pid=1, started="0", age=100)
    assert Claim.acquire(tmp_path, stale_after=200) is None
    claim = Claim.acquire(tmp_path, stale_after=50)
    assert claim is not None
    # The other one, alive after all, notices
    with pytest.raises(ClaimLost, match="taken over"):
        Claim(path).renew()
    claim.renew()
    claim.release()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ClaimLost, match="removed"):
        claim.renew()


def test_renewing_keeps_a_claim(tmp_path):
    path = write_claim(tmp_path, host="elsewhere", pid=1, started="0", age=100)
    Claim(path).renew()
    assert Claim.acquire(tmp_path, stale_after=50) is None


def test_a_claim_of_a_killed_process_of_this_machine_is_dead_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    holder = {**claims.this_process(), "pid": process.pid, "started": claims._started(process.pid)}
    write_claim(tmp_path, **holder)
    assert Claim.acquire(tmp_path) is None
    process.kill()
    process.wait()
    assert Claim.acquire(tmp_path) is not None


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    write_claim(tmp_path, **{**claims.this_process(), "started": "1"})
    assert Claim.acquire(tmp_path) is not None


def test_a_claim_being_written_counts(tmp_path):
    (tmp_path / "claim-1").touch()
    assert Claim.acquire(tmp_path) is None


def test_a_process_in_another_container_is_not_judged_by_its_number(tmp_path, monkeypatch):
    write_claim(tmp_path, host="same name, other processes", pid=2**22 + 1, started="0")
    assert Claim.acquire(tmp_path) is None


def test_the_tenth_claim_comes_after_the_ninth(tmp_path):
    for number, content in ((9, {"host": "elsewhere"}), (10, {"host": "elsewhere"})):
        path = tmp_path / f"claim-{number}"
        path.write_text(json.dumps(content))
        os.utime(path, times=(time.time() - (1000 if number == 9 else 0),) * 2)
    assert Claim.acquire(tmp_path) is None  # the tenth is alive
    os.utime(tmp_path / "claim-10", times=(time.time() - 1000,) * 2)
    claim = Claim.acquire(tmp_path)
    assert claim is not None and claim.path.name == "claim-11"


def test_a_claim_of_a_process_that_has_died_and_was_not_waited_for_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    holder = {**claims.this_process(), "pid": process.pid, "started": claims._started(process.pid)}
    (tmp_path / "claim-1").write_text(json.dumps(holder))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
    assert Claim.acquire(tmp_path) is not None
    process.wait()


def test_a_dead_claim_whose_number_another_one_has_got_meanwhile_is_not_taken_over(tmp_path, monkeypatch):
    write_claim(tmp_path, host="elsewhere", pid=1, started="0", age=1000)
    number = claims._number

    def late(path):
        monkeypatch.setattr(claims, "_number", number)
        (tmp_path / "claim-1").unlink()
        write_claim(tmp_path, host="elsewhere", pid=2, started="0")
        return number(path)

    monkeypatch.setattr(claims, "this_process", lambda: (late(None), {"host": "here", "pid": 3, "started": "0"})[1])
    assert Claim.acquire(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["claim-1"]
