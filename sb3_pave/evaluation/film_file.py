"""Films as files: MP4 through ffmpeg, GIF and WebP through Pillow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = Iterable[NDArray[np.uint8]]

FORMATS = (".mp4", ".gif", ".webp")
# Enough to see each color that a film has; more would only make the palette slower
_SAMPLED = 12


def check_format(path: str | os.PathLike) -> None:
    """
    :param path: a film about to be written
    :raises ValueError: if its ending names no format of :data:`FORMATS`
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: a film ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")


def save_film(frames: Frames, path: str | os.PathLike, fps: float) -> None:
    """
    Write a film. The file is there when it is whole: what breaks off leaves none. GIF and WebP keep all images in memory
    meanwhile; MP4 does not.

    :param frames: its images, all of one shape ``(height, width, 3)``, RGB; for MP4, with an even width and height
    :param path: the file to write, replaced if it exists; its ending says the format
    :param fps: images a second
    :raises ValueError: if its ending names no format, or there are no images
    """
    check_format(path)
    path = Path(path)
    write = {".mp4": _save_mp4, ".gif": _save_gif, ".webp": _save_webp}[path.suffix.lower()]
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(frames, part, fps)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _save_mp4(frames: Frames, path: Path, fps: float) -> None:
    from imageio_ffmpeg import write_frames

    writer = None
    try:
        for frame in frames:
            if writer is None:
                size = (frame.shape[1], frame.shape[0])
                # Flat areas and fine lines: a good quality costs little
                writer = write_frames(str(path), size, fps=fps, codec="libx264", quality=8, macro_block_size=2)
                writer.send(None)
            writer.send(np.ascontiguousarray(frame))
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise ValueError("a film needs an image")


def _save_gif(frames: Frames, path: Path, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    if not images:
        raise ValueError("a film needs an image")
    # One palette for all images and no dithering: what stands still stays the same, and takes no room
    sampled = [np.asarray(images[i]) for i in np.unique(np.linspace(0, len(images) - 1, _SAMPLED).astype(int))]
    palette = Image.fromarray(np.concatenate(sampled)).quantize(255, Image.Quantize.MEDIANCUT)
    colors = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3)
    colors[(colors >= 248).all(axis=1)] = 255  # the ground is white, not the mean of what is nearly white
    palette.putpalette(colors.ravel().tolist())
    first, *others = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    # In hundredths of a second, each image for as long as keeps the film in time
    times = np.round(np.arange(len(images) + 1) * 100 / fps).astype(int)
    first.save(path, save_all=True, append_images=others, duration=(np.diff(times) * 10).tolist(), loop=0, optimize=True)


def _save_webp(frames: Frames, path: Path, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    if not images:
        raise ValueError("a film needs an image")
    times = np.round(np.arange(len(images) + 1) * 1000 / fps).astype(int)
    first, *others = images
    durations = np.diff(times).tolist()
    # Twice the time to write, half the size
    how: Any = {"quality": 80, "method": 4, "minimize_size": True}
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, **how)
