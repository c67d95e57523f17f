"""Checkpoints and copies: what is cut short is not taken for whole, what is protected stays so."""

import zipfile

import pytest
import yaml

from sb3_pave.experiments import process
from sb3_pave.experiments.checkpoints import checkpoints, is_whole
from sb3_pave.experiments.files import copy_into, write_json


def checkpoint(folder, steps):
    path = folder / f"checkpoint-{steps}"
    (path / "Pendulum-v1").mkdir(parents=True)
    with zipfile.ZipFile(path / "Pendulum-v1.zip", "w") as archive:
        archive.writestr("data", "x" * 1000)
    (path / "replay_buffer.pkl").write_bytes(b"\x80\x04K\x01.")
    (path / "Pendulum-v1" / "vecnormalize.pkl").write_bytes(b"\x80\x04K\x02.")
    write_json(path / "training.json", {"steps": steps})
    return path


FILES = ["Pendulum-v1.zip", "replay_buffer.pkl", "Pendulum-v1/vecnormalize.pkl", "training.json"]


@pytest.mark.parametrize("left", ["half", "nothing"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(name, left, tmp_path):
    older, newer = checkpoint(tmp_path / "tries" / "1", 100), checkpoint(tmp_path / "tries" / "2", 200)
    (tmp_path / "tries" / "2" / "checkpoint-unfinished").mkdir()
    assert checkpoints(tmp_path / "tries" / "2") == [newer] and is_whole(newer)
    assert process._newest_checkpoint(tmp_path) == newer and not (tmp_path / "log.txt").exists()
    content = (newer / name).read_bytes()
    (newer / name).write_bytes(content[: len(content) // 2] if left == "half" else b"")
    assert process._newest_checkpoint(tmp_path) == older
    assert (tmp_path / "log.txt").read_text() == f"{newer} is damaged: not used\n"
    (newer / name).unlink()
    (older / "training.json").unlink()
    assert process._newest_checkpoint(tmp_path) is None or name.endswith(".pkl")


def test_a_copy_is_not_protected_and_follows_its_file(tmp_path):
    original, folder = tmp_path / "grid.yml", tmp_path / "out"
    folder.mkdir()
    original.write_text("seeds: [1]")
    copy = folder / "grid.yml"
    original.chmod(0o444)
    copy_into(original, folder)
    assert copy.stat().st_mode & 0o200
    before = copy.stat().st_mtime_ns
    copy_into(original, folder)
    assert copy.stat().st_mtime_ns == before
    original.chmod(0o644)
    original.write_text("seeds: [1, 2]")
    copy_into(original, folder)
    assert yaml.safe_load(copy.read_text()) == {"seeds": [1, 2]} and [one.name for one in folder.iterdir()] == ["grid.yml"]


def test_a_file_of_the_users_own_is_not_replaced_by_a_copy(tmp_path):
    original, folder = tmp_path / "grid.yml", tmp_path / "out"
    folder.mkdir()
    original.write_text("seeds: [1]")
    (folder / "grid.yml").write_text("seeds: [7]")
    with pytest.raises(FileExistsError, match=r"out/grid\.yml is another file than .*: rename one of them"):
        copy_into(original, folder)
    assert (folder / "grid.yml").read_text() == "seeds: [7]"


def test_the_newest_checkpoint_has_the_most_steps(tmp_path):
    for steps in (900, 10_000, 2_000):
        (tmp_path / f"checkpoint-{steps}").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-900", "checkpoint-2000", "checkpoint-10000"]
