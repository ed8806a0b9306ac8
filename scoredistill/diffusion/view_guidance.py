"""Perp-Neg by the camera: each picture moves away from the views that it does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scoredistill.diffusion.guidance import ConditionalPredictor, Guidance, perp_neg
from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.view_prompts import BACK, FRONT, SIDE, ViewPrompts, blend, shares
from scoredistill.ranges import require
from scoredistill.types import Condition, TextEmbeddings

Decay = tuple[float, float, float]
"""a, b and c of f(r) = a exp(-b r) + c."""


class ViewPerpNeg(Guidance):
    """Perp-Neg whose positive is the prompt in its camera's words and whose negatives are the other views:

        epsilon = uncond + s (d_0 + w_front perp(d_front, d_0) + w_side perp(d_side, d_0))

                          front to side             side to back
        w_front     -f_fs(share of front)     -f_fsb(share of side)        f(r) = a exp(-b r) + c
        w_side      -f_sf(share of side)      -f_sb(share of side)

    with the shares of `ViewPrompts`, sample by sample, and no negatives from overhead. A view's weight falls to f(1),
    about 0, where the positive is that view. The back is never a negative: it is the view that models show least.

    A teacher that uses embeddings gets the blended embeddings; any other gets the text of the nearest view. Embeddings
    in the condition are replaced, since they are those of the prompt without a view.

    "Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem and Beyond"
    (2023), arXiv:2304.04968.

    Args:
        scale: s of `CFG`, >= 0.
        views: the texts; None: the defaults, interpolated.
        f_fs, f_sf, f_fsb, f_sb: a, b and c of the four weights, finite; a, b >= 0 and f(1) >= 0.

    Raises:
        ValueError: for a weight that rises with r or changes its sign.
    """

    def __init__(
        self,
        scale: float,
        views: ViewPrompts | None = None,
        f_fs: Decay = (4.0, 0.5, -2.426),
        f_sf: Decay = (4.0, 0.5, -2.426),
        f_fsb: Decay = (1.0, 0.5, 0.967),
        f_sb: Decay = (1.0, 0.5, -0.606),
    ) -> None:
        require(">= 0", scale=scale)
        require("finite", f_fs=f_fs, f_sf=f_sf, f_fsb=f_fsb, f_sb=f_sb)
        for name, (a, b, c) in {"f_fs": f_fs, "f_sf": f_sf, "f_fsb": f_fsb, "f_sb": f_sb}.items():
            if min(a, b) < 0 or a * math.exp(-b) + c < 0:
                raise ValueError(f"{name} needs a, b >= 0 and a exp(-b) + c >= 0; got {(a, b, c)}")
        self.scale = scale
        self.views = views or ViewPrompts(interpolate=True)
        self.f_fs = f_fs
        self.f_sf = f_sf
        self.f_fsb = f_fsb
        self.f_sb = f_sb

    def conditions(
        self, condition: Condition | None, teacher: ConditionalPredictor, rows: int
    ) -> Sequence[Condition | None]:
        if condition is None or not condition.prompt or condition.camera is None:
            raise ValueError("ViewPerpNeg needs a condition with a prompt and cameras; without, use PerpNeg or CFG")
        camera = condition.camera
        read = self._read(teacher, condition, rows)
        if read is None:
            positive = condition.with_prompt(self.views.text(condition.prompt, camera))
            others = [condition.with_prompt(text) for text in self.views.texts(condition.prompt)]
        else:
            weights = self.views.weights(camera.azimuth, camera.elevation)
            positive = replace(condition, embeddings=blend(read, weights))
            others = [replace(condition, embeddings=view) for view in read]
        return [positive, positive.negative(), others[FRONT], others[SIDE]]

    def combine(self, predictions: Sequence[Prediction], condition: Condition | None) -> Prediction:
        assert condition is not None
        assert condition.camera is not None
        weights = self.weights(condition.camera.azimuth, condition.camera.elevation)
        return perp_neg(predictions, weights.unbind(1), self.scale)

    def weights(self, azimuth: Tensor, elevation: Tensor) -> Tensor:
        """w_front and w_side.

        Args:
            azimuth, elevation: (B,) degrees.

        Returns:
            (B, 2), <= 0.
        """
        share = shares(azimuth)
        front = share[:, FRONT]
        side = share[:, SIDE]
        behind = share[:, BACK] > 0
        w_front = torch.where(behind, decay(self.f_fsb, side), decay(self.f_fs, front))
        w_side = torch.where(behind, decay(self.f_sb, side), decay(self.f_sf, side))
        overhead = (elevation >= self.views.overhead_threshold)[:, None]
        return -torch.stack([w_front, w_side], 1).masked_fill(overhead, 0)

    def _read(self, teacher: ConditionalPredictor, condition: Condition, rows: int) -> list[TextEmbeddings] | None:
        """Embeddings of each view, B rows; None if the teacher does not use embeddings.

        All views are encoded in one call, so that text encoders are loaded once, and without a camera, because the
        texts already name the view.
        """
        worded = self.views.texts(condition.prompt or "")
        flat = [text for view in worded for text in ([view] if isinstance(view, str) else view)]
        found = teacher.encode_prompt(Condition(flat), len(flat))
        if found is None or found.embeddings is None:
            return None
        own = len(flat) // len(worded)  # texts per view: one for all rows, or one per row
        index = torch.arange(rows) % own
        return [TextEmbeddings.of(found.embeddings)[index + own * view] for view in range(len(worded))]


def decay(parameters: Decay, r: Tensor) -> Tensor:
    """f(r) = a exp(-b r) + c."""
    a, b, c = parameters
    return a * torch.exp(-b * r) + c
