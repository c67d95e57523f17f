"""What the zoo passes on unread is read before it does anything."""

import pytest
import yaml
from rl_zoo3.utils import ALGOS
from stable_baselines3 import SAC
from torch import nn

from sb3_pave import PAVE_SAC
from sb3_pave.zoo import register
from sb3_pave.zoo.checks import refuse_unknown
from sb3_pave.zoo.errors import ZooError

TRAIN = ("train", "--env", "Pendulum-v1", "--eval-freq", "-1", "--device", "cpu")
TINY = {"learning_starts": 5, "batch_size": 4, "buffer_size": 100, "policy_kwargs": {"net_arch": [4]}}


@pytest.fixture
def refused(sb3_pave_command, tmp_path, capsys):
    """What a command answers that is refused before it has made anything."""

    def answer(*arguments):
        with pytest.raises(SystemExit) as exit_info:
            sb3_pave_command(*TRAIN, *arguments)
        assert exit_info.value.code == 1 and not (tmp_path / "logs").exists()
        return capsys.readouterr().err

    return answer


@pytest.mark.parametrize(
    ("algo", "name", "nearest"),
    [
        ("pave_sac", "mpr_coeff", "mpr_coef"),
        ("damper_pave_td3", "etta", "eta"),
        ("pave_td3", "learning_start", "learning_starts"),
        ("pave_td3", "n_timestep", "n_timesteps"),
        ("pave_td3", "frame_stacks", "frame_stack"),
    ],
)
@pytest.mark.parametrize("continued", [False, True])
def test_a_misspelled_hyperparameter_is_refused(algo, name, nearest, continued, refused, tmp_path):
    (tmp_path / "model.zip").write_bytes(b"")  # it is not read
    further = ("-i", str(tmp_path / "model.zip")) if continued else ()
    message = refused("--algo", algo, "-params", f"{name}:1.0", *further)
    assert message == f"sb3-pave train: {algo} has no hyperparameter '{name}'; did you mean {nearest}?\n"


def test_that_of_another_algorithm_is_refused_also_in_a_file(refused, tmp_path):
    entry = {"n_timesteps": 10, "policy": "MlpPolicy", "policy_delay": 2}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry}))
    assert "no hyperparameter 'policy_delay'" in refused("--algo", "pave_sac", "-conf", "mine.yml")


def test_what_the_constructors_take_is_let_through():
    register()
    for name in ("pave_sac", "pave_td3", "pave_ddpg", "pave_tqc", "pave_crossq", "caps_sac", "damper_pave_td3"):
        refuse_unknown(name, ALGOS[name], ["gamma", "train_freq", "policy_kwargs", "replay_buffer_class", "noise_type"])
    refuse_unknown("asap_pave_sac", ALGOS["asap_pave_sac"], ["predictor_tau", "spatial_coef", "scale_free", "ent_coef"])

    class Open(PAVE_SAC):
        __signature__ = None

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    refuse_unknown("open", Open, ["anything"])
    with pytest.raises(ZooError):
        refuse_unknown("pave_sac", PAVE_SAC, ["anything"])


@pytest.mark.parametrize(
    ("before", "now", "kept"), [("auto", "0.2", "-params \"ent_coef:'auto'\""), (0.2, "'auto_0.1'", "-params ent_coef:0.2")]
)
def test_another_kind_of_entropy_coefficient_is_refused(before, now, kept, refused, tmp_path):
    SAC("MlpPolicy", "Pendulum-v1", ent_coef=before, **TINY).save(tmp_path / "model.zip")
    message = refused("--algo", "pave_sac", "-i", str(tmp_path / "model.zip"), "-params", f"ent_coef:{now}")
    assert f"model.zip trained with ent_coef {before}, and SB3 can't go on" in message
    assert kept in message and "-conf" in message


def test_what_the_message_advises_works(sb3_pave_command, tmp_path):
    smooth = {**TINY, "policy_kwargs": {"net_arch": [4], "activation_fn": nn.SiLU}}
    SAC("MlpPolicy", "Pendulum-v1", ent_coef="auto", **smooth).save(tmp_path / "model.zip")
    advised = ("-params", "ent_coef:'auto'", "learning_starts:5", "batch_size:4", "n_timesteps:10", "buffer_size:100")
    sb3_pave_command(*TRAIN, "--algo", "pave_sac", "-i", str(tmp_path / "model.zip"), *advised)
    assert PAVE_SAC.load(tmp_path / "logs/pave_sac/Pendulum-v1_1/Pendulum-v1.zip").ent_coef == "auto"
