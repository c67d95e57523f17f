"""Films: what was seen, the traces of what was done, and files that play."""

import dataclasses
import os
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_pave.evaluation import offscreen
from sb3_pave.evaluation.rollout import Episode, record_rollout
from sb3_pave.evaluation.smoothness import smoothness_score
from sb3_pave.evaluation.takes import FilmError, Shot, Take, playback, record_take

pytest.importorskip("matplotlib")

from PIL import Image

from sb3_pave.evaluation import film, film_picture
from sb3_pave.evaluation.film import FilmSettings
from sb3_pave.evaluation.film_file import save_film
from sb3_pave.evaluation.film_picture import Script, film_frames
from sb3_pave.evaluation.style import COLORS

GREEN, BLUE = (10, 200, 30), (20, 40, 250)


def take(actions, color=GREEN, steps=None, size=(50, 50)):
    """A take with images of one color."""
    actions = np.array(actions, dtype=np.float32)
    rewards = np.arange(len(actions), dtype=np.float64)
    episode = Episode(np.empty(0), actions, rewards, rewards.sum(), len(actions))
    steps = list(range(len(actions))) if steps is None else steps
    images = [np.full((*size, 3), color, np.uint8) for _ in steps]
    bounds = np.full(actions.shape[1], 2.0)
    return Take(episode, images, steps, list(np.cumsum(rewards)), -bounds, bounds)


def script(**changes):
    settings = {"title": "T", "labels": ["A", "B"], "action_dims": [0], "control_rate": 10.0, "height": 240}
    return Script(**{**settings, **changes})


def agent(env="Pendulum-v1", seed=0):
    return TD3("MlpPolicy", env, policy_kwargs={"net_arch": [8], "activation_fn": nn.SiLU}, device="cpu", seed=seed)


@pytest.fixture
def pendulum():
    env = make_vec_env("Pendulum-v1", env_kwargs={"render_mode": "rgb_array"}, wrapper_kwargs={})
    yield env
    env.close()


@pytest.mark.parametrize(
    ("rate", "most_fps", "stride", "fps"), [(20, 25, 1, 20), (50, 25, 2, 25), (125, 25, 5, 25), (30, 25, 2, 15), (5, 25, 1, 5)]
)
def test_a_film_is_as_fast_as_the_robot(rate, most_fps, stride, fps):
    assert playback(rate, most_fps) == (stride, fps)


def test_an_image_shows_the_state_in_which_the_action_was_chosen(pendulum):
    model = agent()
    filmed = record_take(model, pendulum, Shot(start=2, stride=3, height=500), seed=4)
    env = gym.make("Pendulum-v1", render_mode="rgb_array")
    observation, _ = env.reset(seed=4)
    seen = []
    for step in range(9):
        if step in (2, 5, 8):
            seen.append(env.render())
        action, _ = model.predict(observation, deterministic=True)
        np.testing.assert_array_equal(filmed.actions[step], action)
        observation, *_ = env.step(action)
    assert filmed.steps[:3] == [2, 5, 8] and filmed.steps[-1] == 197
    assert len(filmed.images) == len(filmed.steps)
    for image, expected in zip(filmed.images, seen, strict=False):
        np.testing.assert_array_equal(image, expected)
    env.close()


def test_the_episode_is_the_one_that_is_evaluated_and_images_have_the_asked_height(pendulum):
    filmed = record_take(agent(), pendulum, Shot(stride=50, height=40), seed=7)
    evaluated = record_rollout(agent(), make_vec_env("Pendulum-v1"), 1, seed=7).episodes[0]
    assert filmed.episode.total_reward == evaluated.total_reward
    np.testing.assert_array_equal(filmed.episode.actions, evaluated.actions)
    assert {image.shape for image in filmed.images} == {(40, 40, 3)}
    assert (filmed.low, filmed.high) == (-2.0, 2.0)


@pytest.mark.parametrize(("steps", "n_steps"), [(None, 200), (5, 5)])
def test_the_return_is_the_monitors_where_a_wrapper_scales_rewards(steps, n_steps):
    class Hundredth(gym.RewardWrapper):
        def reward(self, reward):
            return reward / 100

    scaled, plain = (
        make_vec_env("Pendulum-v1", wrapper_class=wrapper, env_kwargs={"render_mode": "rgb_array"})
        for wrapper in (Hundredth, None)
    )
    shot = Shot(stride=50, height=40, steps=steps)
    first, second = (record_take(agent(), env, shot, seed=3) for env in (scaled, plain))
    np.testing.assert_allclose(first.returns, np.cumsum(second.episode.rewards), rtol=1e-4)
    assert len(first.returns) == n_steps and first.returns[-1] == pytest.approx(first.episode.total_reward)


def test_an_episode_that_ends_before_the_film_starts_is_an_error(pendulum):
    with pytest.raises(FilmError, match="ends after 200 steps"):
        record_take(agent(), pendulum, Shot(start=200))


class Undrawn(gym.Env):
    def __init__(self, image=None, render_mode="rgb_array"):
        self.observation_space = self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.image, self.render_mode = image, render_mode
        self.metadata = {"render_modes": ["rgb_array"]}

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, True, False, {}

    def render(self):
        if isinstance(self.image, str):
            raise RuntimeError("no such library")
        return self.image


@pytest.mark.parametrize(
    ("image", "message"), [(None, "draws no images"), (np.zeros((4, 4)), "draws no images"), ("broken", "no such library")]
)
def test_an_environment_that_can_not_be_drawn_says_so(image, message):
    env = make_vec_env(Undrawn, env_kwargs={"image": image})
    with pytest.raises(FilmError, match=message):
        record_take(agent(env), env, Shot())


def test_traces_return_and_score_run_with_the_images():
    left, right = take([[2.0, 0.0], [-2.0, 1.0], [1.0, 2.0], [0.5, 1.5], [2.0, 0.0]]), take([[0.0, 0.1]] * 5, BLUE)
    sheet = film_picture._Sheet([left, right], script(action_dims=[1, 0]))
    sheet.draw(2)
    one = sheet.columns[0]
    np.testing.assert_allclose(one.lines[0].get_xydata(), [[0.0, 0.0], [0.1, 1.0], [0.2, 2.0]])
    np.testing.assert_allclose(one.lines[1].get_xydata(), [[0.0, 2.0], [0.1, -2.0], [0.2, 1.0]])
    np.testing.assert_allclose(one.heads[1].get_xydata(), [[0.2, 1.0]])
    assert one.total.get_text() == "return 3.0"  # 0 + 1 + 2
    assert one.score.get_text() == f"sm {smoothness_score(left.actions[:3]):.2f}"
    sheet.draw(5)  # past the last image
    assert len(one.lines[0].get_xydata()) == 5
    assert one.score.get_text() == f"sm {smoothness_score(left.actions):.2f}" != "sm 0.00"
    assert sheet.columns[1].score.get_text() == "sm 0.00"


def test_where_a_wrapper_repeats_actions_steps_are_decisions():
    """``Monitor`` counts what is below the wrapper: 8 steps of 4 decisions."""
    repeated = take([[2.0], [-2.0], [2.0], [1.0]])
    repeated = dataclasses.replace(repeated, episode=dataclasses.replace(repeated.episode, length=8))
    sheet = film_picture._Sheet([repeated], script(labels=["A"]))
    sheet.draw(4)  # past the last image
    assert len(sheet.columns[0].lines[0].get_xydata()) == 4


def test_a_film_that_starts_later_traces_from_there_and_scores_from_the_start():
    actions = [[2.0], [-2.0], [2.0], [1.0]]
    sheet = film_picture._Sheet([take(actions, steps=[2, 3])], script(labels=["A"]))
    sheet.draw(0)
    np.testing.assert_allclose(sheet.columns[0].lines[0].get_xydata(), [[0.2, 2.0]])
    assert sheet.columns[0].score.get_text() == f"sm {smoothness_score(actions[:3]):.2f}"


def test_frames_show_the_agents_side_by_side_in_their_colors():
    frames = list(film_frames([take([[2.0], [-2.0]] * 4), take([[1.0], [1.5]] * 4, BLUE)], script(height=480), fps=10.0))
    assert len(frames) == 8 + 10  # the last one stays for a second
    height, width, _ = frames[0].shape
    assert (height, width % 2) == (480, 0)
    between = int(0.54 * width)  # the first column has the axis on its left
    for half, color, line in ((np.s_[:, :between], GREEN, COLORS[0]), (np.s_[:, between:], BLUE, COLORS[1])):
        shown = frames[-1][half].reshape(-1, 3)
        assert (shown == color).all(axis=1).sum() == 50 * 50
        for ink in COLORS[:2]:
            n_pixels = (shown == tuple(bytes.fromhex(ink[1:]))).all(axis=1).sum()
            assert n_pixels > 20 if ink == line else n_pixels == 0
    assert (frames[-1] == frames[-2]).all()


@pytest.mark.parametrize("n_agents", [1, 2])
def test_words_stay_within_their_columns(n_agents):
    long = "PAVE TD3, Pendulum-v1_1/a_name_so_long_that_no_line_holds_it " * 3
    takes = [take([[1.0], [1.5]], BLUE)] * n_agents
    sheet = film_picture._Sheet(takes, script(title=long, labels=["PAVE TD3, Pendulum-v1_1/best_model", long][:n_agents]))
    boxes = {text.get_text(): text.get_window_extent(sheet.canvas.get_renderer()) for text in sheet.figure.texts}
    assert all(box.x0 >= 0 and box.x1 <= sheet.width for box in boxes.values())
    if n_agents == 2:
        first, second = sorted((box for words, box in boxes.items() if words.startswith("PAVE")), key=lambda box: box.x0)[-2:]
        assert first.x1 < second.x0
    assert any(words.startswith("sm: smoothness") and words.endswith("bounds") for words in boxes)


@pytest.mark.parametrize("label", ["costs $x_{$", "costs $x_{$ and a name so long that it is cut " * 4])
def test_a_label_that_is_no_formula_stands_as_it_is(label):
    sheet = film_picture._Sheet([take([[1.0], [1.5]])], script(labels=[label]))
    sheet.draw(0)
    (shown,) = (text for text in sheet.figure.texts if text.get_text().startswith("costs"))
    assert shown.get_window_extent(sheet.canvas.get_renderer()).x1 <= sheet.width


def test_the_title_says_which_of_many_actions_are_traced():
    env = make_vec_env(Undrawn)
    env.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    assert film._plan(env, FilmSettings("X", ["A"])).script.title.endswith(", actions 0-2 of 4")
    assert "actions 0-2" not in film._plan(env, FilmSettings("X", ["A"], action_dims=[3])).script.title


def test_who_has_ended_stays_greyed_while_the_other_goes_on():
    frames = list(film_frames([take([[1.0]] * 4), take([[1.0]] * 2, BLUE)], script(), fps=10.0))
    blue = [(frame == BLUE).all(axis=2).sum() for frame in frames]
    assert blue[:2] == [2500, 2500] and max(blue[2:]) == 0
    greyed = np.uint8(0.45 * np.array(BLUE) + 0.55 * 255)
    assert (frames[2] == greyed).all(axis=2).sum() > 1000
    assert [(frame == GREEN).all(axis=2).sum() for frame in frames] == [2500] * len(frames)


@pytest.mark.parametrize("height", [100, 241])
def test_a_height_that_no_film_has_is_refused(height):
    with pytest.raises(ValueError, match="even number of at least 160"):
        script(height=height)


def test_an_action_that_is_not_there_is_refused():
    with pytest.raises(FilmError, match="no action 1: the environment has 1"):
        list(film_frames([take([[1.0]])], script(labels=["A"], action_dims=[0, 1]), 10.0))


def moving(n=6, size=(64, 80)):
    frames = [np.full((*size, 3), 255, np.uint8) for _ in range(n)]
    for i, frame in enumerate(frames):
        frame[8 * i : 8 * i + 16, 16:48] = GREEN
    return frames


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_gif_and_webp_play_what_was_written(tmp_path, ending):
    save_film(moving(), tmp_path / f"film.{ending}", fps=30)
    with Image.open(tmp_path / f"film.{ending}") as film:
        assert (film.size, film.n_frames, film.info["loop"]) == ((80, 64), 6, 0)
        durations = []
        for i, expected in enumerate(moving()):
            film.seek(i)
            shown = np.asarray(film.convert("RGB")).astype(int)
            assert np.abs(shown - expected).mean() < 3, i
            assert (shown[0, 0] >= 254).all()
            durations.append(film.info["duration"])
    assert sum(durations) == 200  # 6 / 30 s, whatever the format rounds each to


# imageio-ffmpeg's reader leaves the pipes of its process to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_mp4_plays_what_was_written(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    save_film(moving(), tmp_path / "film.mp4", fps=30)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    meta = next(reader)
    frames = [np.frombuffer(frame, np.uint8).reshape(64, 80, 3).astype(int) for frame in reader]
    reader.close()
    assert (meta["size"], meta["fps"], len(frames)) == ((80, 64), 30.0, 6)
    assert all(np.abs(frame - expected).mean() < 6 for frame, expected in zip(frames, moving(), strict=True))


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    def frames():
        yield from moving(2)
        raise KeyboardInterrupt

    (tmp_path / f"film.{ending}").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        save_film(frames(), tmp_path / f"film.{ending}", fps=30)
    assert [file.name for file in tmp_path.iterdir()] == [f"film.{ending}"]
    assert (tmp_path / f"film.{ending}").read_text() == "mine"


@pytest.mark.parametrize(("name", "frames", "message"), [("film.avi", moving(1), "ends in"), ("film.gif", [], "an image")])
def test_a_film_without_images_or_of_another_format_is_refused(tmp_path, name, frames, message):
    with pytest.raises(ValueError, match=message):
        save_film(frames, tmp_path / name, fps=30)


@pytest.fixture
def no_screen(monkeypatch):
    monkeypatch.setattr(offscreen.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "SDL_VIDEODRIVER"):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("works", "chosen"), [({"egl", "osmesa"}, "egl"), ({"osmesa"}, "osmesa")])
def test_mujoco_gets_the_renderer_that_works(no_screen, monkeypatch, works, chosen):
    pytest.importorskip("mujoco")
    monkeypatch.setattr(offscreen, "_works", works.__contains__)
    offscreen.prepare_rendering()
    assert (os.environ["MUJOCO_GL"], os.environ["SDL_VIDEODRIVER"]) == (chosen, "dummy")


def test_without_a_renderer_it_says_what_to_install(no_screen, monkeypatch, pendulum):
    pytest.importorskip("mujoco")
    monkeypatch.setattr(offscreen, "_works", lambda backend: False)
    offscreen.prepare_rendering()
    offscreen.check_renderer(pendulum)  # needs none
    with pytest.raises(offscreen.NoRendererError, match="apt install libosmesa6"):
        offscreen.check_renderer(make_vec_env("Hopper-v5", env_kwargs={"render_mode": "rgb_array"}))


def test_the_renderer_is_chosen_before_there_is_an_environment(monkeypatch, tmp_path):
    """That there is a simulator of MuJoCo in a maze of gymnasium-robotics can't be seen; dm_control chooses at import."""
    done = []

    class Unmade:
        def make_env(self, *args):
            done.append("environment")
            raise FilmError("not made")

    monkeypatch.setattr(film, "prepare_rendering", lambda: done.append("renderer"))
    with pytest.raises(FilmError, match="not made"):
        film.make_film([Unmade()], FilmSettings("Pendulum-v1", ["A"]), tmp_path / "film.gif", None)
    assert done == ["renderer", "environment"]


def drawable_hopper(**env_kwargs):
    pytest.importorskip("mujoco")
    offscreen.prepare_rendering()
    env = make_vec_env("Hopper-v5", env_kwargs={"render_mode": "rgb_array", **env_kwargs})
    try:
        offscreen.check_renderer(env)
    except offscreen.NoRendererError:
        pytest.skip("neither EGL nor OSMesa works here")
    return env


def test_a_robot_that_walks_away_stays_in_the_picture(no_screen):
    env = drawable_hopper()
    offscreen.follow_robot(env)
    env.reset()
    hopper = env.envs[0].unwrapped
    for place in (0.0, 40.0):
        hopper.set_state(np.append(place, hopper.init_qpos[1:]), hopper.init_qvel)
        red, _, blue = env.get_images()[0].astype(int).transpose(2, 0, 1)
        assert (red - blue > 40).mean() > 0.01  # it is brown, all else is grey, green and blue
    env.close()


@pytest.mark.parametrize("chosen", [{"camera_id": -1}, {"default_camera_config": {"distance": 9.0}}])
def test_a_camera_that_the_user_chose_is_kept(chosen):
    pytest.importorskip("mujoco")
    env = make_vec_env("Hopper-v5", env_kwargs={"render_mode": "rgb_array", **chosen})
    (renderer,) = env.get_attr("mujoco_renderer")
    before = renderer.camera_id
    offscreen.follow_robot(env)
    assert renderer.camera_id == before
    env.close()


def test_mujoco_is_drawn_without_a_screen(no_screen):
    env = drawable_hopper(max_episode_steps=2)
    filmed = record_take(agent(env), env, Shot(height=60))
    env.close()
    assert len(filmed.images) == 2 and all(image.shape == (60, 60, 3) and image.std() > 10 for image in filmed.images)


@pytest.mark.parametrize(("render_fps", "fps"), [(12, 12.0), (None, 15.0)])
def test_an_environment_without_a_rate_is_shown_as_fast_as_it_says(render_fps, fps):
    env = make_vec_env(Undrawn)
    env.envs[0].unwrapped.metadata["render_fps"] = render_fps
    assert film._plan(env, FilmSettings("X", ["A"])).fps == fps


def test_a_film_at_twice_the_speed_takes_every_other_image(pendulum):
    plans = [film._plan(pendulum, FilmSettings("Pendulum-v1", ["A"], speed=speed)) for speed in (1.0, 2.0, 0.5)]
    shown = [(plan.shot.stride, plan.fps, plan.script.control_rate) for plan in plans]
    assert shown == [(1, 20, 20), (2, 20, 20), (1, 10, 20)]


def test_a_film_is_of_the_actions_and_seeds_that_its_title_says(pendulum, monkeypatch):
    seen = []
    monkeypatch.setattr(film, "record_take", lambda *args: seen.append(args[3:5]))
    settings = FilmSettings("Pendulum-v1", ["A"], seed=3, n_episodes=2, deterministic=False)
    saved, progress = SimpleNamespace(load=lambda device: agent()), SimpleNamespace(begin=lambda *_: None)
    film._record(saved, pendulum, "A", settings, Shot(), progress)
    assert seen == [(False, 3), (False, 4)] and settings.title == "Pendulum-v1, stochastic actions, seeds 3 to 4"


def test_the_axis_of_an_action_has_its_own_bounds_or_what_was_filmed():
    bounds = {"low": np.array([-2.0, -1.0, -np.inf]), "high": np.array([2.0, 1.0, np.inf])}
    one = dataclasses.replace(take([[0.0, 0.0, 90.0], [0.0, 0.0, 3.0], [0.0, 0.0, 4.0]], steps=[1, 2]), **bounds)
    sheet = film_picture._Sheet([one], script(labels=["A"], action_dims=[0, 1, 2]))
    assert [sheet._limits(dim) for dim in range(3)] == [(-2.0, 2.0), (-1.0, 1.0), (3.0, 4.0)]


def test_where_steps_have_no_image_the_return_counts_them():
    sheet = film_picture._Sheet([take([[0.0]] * 5, steps=[0, 2, 4])], script(labels=["A"]))
    sheet.draw(1)
    assert sheet.columns[0].total.get_text() == "return 3.0"  # 0 + 1 + 2


def test_agents_side_by_side_have_one_axis_of_time():
    sheet = film_picture._Sheet([take([[1.0]] * 4), take([[1.0]] * 2)], script())
    assert [column.lines[0].axes.get_xlim() for column in sheet.columns] == [pytest.approx((0.0, 0.3))] * 2


def test_a_rate_that_is_the_films_but_for_rounding_loses_no_image():
    assert playback(25.0 * (1.0 + 1e-12), 25.0)[0] == 1
