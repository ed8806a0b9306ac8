"""Teachers with tiny networks of diffusers, for tests of adapters."""

from collections.abc import Sequence

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor

from scoredistill.diffusion import FlowSchedule, LinearSchedule, Prediction, Schedule
from scoredistill.networks import Backbone, DiffusersBackbone, Parameterization
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import NetworkTeacher
from scoredistill.types import Condition, Diffused, Sample, TextEmbeddings


def unet(dropout: float = 0.0) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6, attention_head_dim=4, dropout=dropout,
    )  # fmt: skip


class Batched(NetworkTeacher):
    """A text-conditional teacher that evaluates all branches in one forward pass; no prompt is a text of zeros."""

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        n, nothing = len(conditions), x_t.new_zeros(len(x_t), 5, 6)
        texts = [nothing if c is None or c.embeddings is None else c.embeddings for c in conditions]
        asked = Condition(embeddings=torch.cat(texts))
        both = self.denoiser(x_t.repeat(n, 1, 1, 1), t.repeat(n), asked, self.schedule)
        return [Prediction.of(both.kind, value, x_t, t, self.schedule) for value in both.value.chunk(n)]


def text_teacher(
    prediction: Parameterization = "epsilon",
    schedule: Schedule | None = None,
    checkpointing: bool = False,
    dropout: float = 0.0,
) -> Batched:
    schedule = schedule or LinearSchedule()
    backbone = DiffusersBackbone(
        unet(dropout), time="discrete", schedule=schedule, gradient_checkpointing=checkpointing
    )
    return Batched(backbone, prediction=prediction, schedule=schedule).eval()


class Transformer(Backbone):
    """SD3's transformer, conditioned on text by tokens and a pooled embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=2, out_channels=2, num_layers=2, attention_head_dim=4,
            num_attention_heads=2, caption_projection_dim=8, joint_attention_dim=6, pooled_projection_dim=7,
            pos_embed_max_size=4,
        )  # fmt: skip

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        text = TextEmbeddings.of(condition.embeddings)
        time = 1000 * torch.sigmoid(-0.5 * log_snr)
        return self.network(x, text.tokens, text.pooled, time, return_dict=False)[0]


def flow_teacher() -> NetworkTeacher:
    return NetworkTeacher(Transformer(), prediction="flow", schedule=FlowSchedule()).eval()


def cameras(n: int) -> Camera:
    at = torch.linspace(0, 300, n)
    return Camera.orbit(at, at * 0 + 15, at * 0 + 2.5, at * 0 + 40)


def condition(n: int = 4, pooled: bool = False) -> Condition:
    rng = torch.Generator().manual_seed(3)
    tokens = torch.randn(n, 5, 6, generator=rng)
    text = TextEmbeddings(tokens, torch.randn(n, 7, generator=rng)) if pooled else tokens
    return Condition(camera=cameras(n), embeddings=text)


def diffused(schedule: Schedule, n: int = 4, pooled: bool = False, seed: int = 4) -> Diffused:
    """Samples of two particles, alternating."""
    rng = torch.Generator().manual_seed(seed)
    sample = Sample(torch.randn(n, 2, 8, 8, generator=rng), condition(n, pooled), particle=torch.arange(n) % 2)
    return Diffused.diffuse(sample, torch.linspace(0.2, 0.8, n), torch.randn(n, 2, 8, 8, generator=rng), schedule)
