"""Scatter plots of particles in one or two dimensions."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor


def require_matplotlib() -> None:
    """Say what to install, before a run rather than after it.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("pictures of points need matplotlib: install scoredistill[plots]")


def scatter_picture(x: Tensor, reference: Tensor | None = None, size: int = 480) -> Tensor:
    """Points over samples of the distribution that they should follow.

    Args:
        x: (n, 1) or (n, 2); one dimension is drawn as a histogram.
        reference: samples of the same dimension, beneath in grey.
        size: height and width in pixels.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: for points of more than two dimensions.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if x.ndim != 2 or x.shape[1] > 2:
        raise ValueError(f"only points in one or two dimensions can be drawn, got shape {tuple(x.shape)}")
    figure = Figure(figsize=(4, 4), dpi=size // 4, layout="tight")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    for points, colour, label in ((reference, "0.75", "teacher"), (x, "tab:blue", "particles")):
        if points is None:
            continue
        values = points.detach().cpu().double().numpy()
        if x.shape[1] == 1:
            axes.hist(values[:, 0], bins=60, density=True, color=colour, alpha=0.7, label=label)
        else:
            axes.scatter(values[:, 0], values[:, 1], s=5, color=colour, label=label, linewidths=0)
    axes.legend(loc="upper right")
    if x.shape[1] == 2:
        axes.set_aspect("equal", adjustable="datalim")
    canvas.draw()
    return torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8).view(size, size, 4)[..., :3].clone()
