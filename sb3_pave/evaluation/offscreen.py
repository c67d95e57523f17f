"""Rendering on a machine without a screen."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache

from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.evaluation.takes import FilmError

#: MuJoCo's ways to draw without a screen, the faster first
MUJOCO_BACKENDS = ("egl", "osmesa")
NO_RENDERER = (
    "no renderer works here: MuJoCo draws off screen through EGL or OSMesa. On Debian and Ubuntu, install one of them "
    "(apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6); MUJOCO_GL=egl or MUJOCO_GL=osmesa then chooses it"
)

_CAMERA_ARGUMENTS = {"camera_id", "camera_name", "default_camera_config"}

# A whole context, not an import: libraries without a driver load, too
_PROBE = """
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""


class NoRendererError(FilmError):
    """Nothing on this machine can draw the environment; the message says what to install."""


def prepare_rendering() -> None:
    """
    Set ``SDL_VIDEODRIVER`` and, without a screen, ``MUJOCO_GL`` to a renderer that works, unless they are set. To be called
    before the environment is made, and its package is imported: whether it has a simulator of MuJoCo inside can't be seen of
    every one, and dm_control chooses a renderer when it is imported. Idempotent.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame opens no window, whatever the environment asks of it
    if _has_renderer() or importlib.util.find_spec("mujoco") is None:
        return
    working = next((backend for backend in MUJOCO_BACKENDS if _works(backend)), None)
    if working is not None:
        os.environ["MUJOCO_GL"] = working


def check_renderer(env: VecEnv) -> None:
    """
    :param env: the environment, made after :func:`prepare_rendering`
    :raises NoRendererError: if a MuJoCo environment has neither a screen nor a renderer that works without
    """
    if _draws_with_mujoco(env) and not _has_renderer():
        raise NoRendererError(NO_RENDERER)


def follow_robot(env: VecEnv) -> None:
    """
    Draw a MuJoCo robot by the camera of its model that goes along with it, unless the environment's arguments choose another.
    Gymnasium did so before 1.4; since then robots walk out of the picture.

    :param env: the environment, before it draws its first image
    """
    if not _draws_with_mujoco(env):
        return
    import mujoco

    for renderer, spec in zip(env.get_attr("mujoco_renderer"), env.get_attr("spec"), strict=True):
        if spec is None or not _CAMERA_ARGUMENTS & spec.kwargs.keys():
            camera = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
            if camera != -1:
                renderer.camera_id = camera


def _has_renderer() -> bool:
    """Whether MuJoCo has a screen, or a way to draw without."""
    has_screen = not sys.platform.startswith("linux") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return has_screen or "MUJOCO_GL" in os.environ


def _draws_with_mujoco(env: VecEnv) -> bool:
    try:
        env.get_attr("mujoco_renderer")
    except AttributeError:
        return False
    return True


@cache
def _works(backend: str) -> bool:
    """In a process of its own: PyOpenGL keeps the first one it is told of, and a driver may abort."""
    probe = [sys.executable, "-c", _PROBE]
    return subprocess.run(probe, env={**os.environ, "MUJOCO_GL": backend}, capture_output=True).returncode == 0
