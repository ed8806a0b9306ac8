"""A latent diffusion model that the package trains from scratch, and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import LinearSchedule
from scoredistill.files import atomic_folder
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.networks.storage import require_finite_weights
from scoredistill.teachers.diffusers.codec import LatentCodec
from scoredistill.teachers.diffusers.prompts import expanded, listed
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Condition, TextEmbeddings

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def word_tokenizer(texts: Sequence[str], length: int) -> Any:
    """CLIP's byte-pair encoding with a vocabulary in which each word of the texts is one token.

    Other words are split into letters or parts of known words.

    "Neural Machine Translation of Rare Words with Subword Units" (2015), arXiv:1508.07909.

    Args:
        texts: texts whose words become tokens, at least one.
        length: maximum number of tokens, including start and end, >= 3.

    Returns:
        A CLIPTokenizer of transformers. It is the same in each run for the same texts.

    Raises:
        ValueError: if there is no word, or the length is below 3.
    """
    if length < 3 or not any(text.strip() for text in texts):
        raise ValueError(
            f"a tokenizer needs at least one word and a length of 3; got {len(texts)} texts and a length of {length}"
        )
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Letters and last letters come first in a fixed order. The trainer's own order, and with it the merges, would
    # differ between runs. The vocabulary is so large that merging continues until each word is one token.
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 20, min_frequency=1, end_of_word_suffix="</w>", show_progress=False,
        special_tokens=[*alphabet, *(f"{letter}</w>" for letter in alphabet)],
    )  # fmt: skip
    trained.train_from_iterator(texts, trainer)
    with TemporaryDirectory() as folder:
        trained.model.save(folder)
        vocabulary = json.loads((Path(folder) / "vocab.json").read_text())
        vocabulary |= {word: len(vocabulary) + i for i, word in enumerate(SPECIAL)}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        return CLIPTokenizer(f"{folder}/vocab.json", f"{folder}/merges.txt", model_max_length=length)


class LatentDiffusionTeacher(Teacher):
    """A trainable latent UNet and text encoder, over a frozen autoencoder:

        epsilon(x_t, t, prompt) = UNet(x_t, t, CLIP(prompt)),    x = encoder(picture)

    with Stable Diffusion's noise schedule. `DiffusersTeacher` loads the folders that `save` writes.

    "High-Resolution Image Synthesis with Latent Diffusion Models" (2021), arXiv:2112.10752.

    Args:
        autoencoder: an AutoencoderKL of diffusers.
        unet: settings of a UNet2DConditionModel under diffusers' names, without its channels and the width of its
            cross-attention.
        text_encoder: settings of a CLIPTextModel under transformers' names, without its vocabulary.
        words: texts whose words become one token each.
        prediction: output of the UNet, epsilon or v.

    Raises:
        ValueError: if settings contain a value that follows from other settings, or do not fit together.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        words: Sequence[str],
        prediction: Literal["epsilon", "v"] = "epsilon",
    ) -> None:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__(LinearSchedule())
        self.codec = LatentCodec(autoencoder.eval().requires_grad_(False))
        self.tokenizer = word_tokenizer(words, int(text_encoder.get("max_position_embeddings", 77)))
        ids = {f"{name}_token_id": getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        derived = {"vocab_size": len(self.tokenizer), **ids}
        kind: Any = CLIPTextModel
        self.text_encoder = kind(CLIPTextConfig(**_merged("text_encoder", text_encoder, derived)))
        channels = self.codec.channels
        derived = {"in_channels": channels, "out_channels": channels}
        derived["cross_attention_dim"] = self.text_encoder.config.hidden_size
        network: Any = UNet2DConditionModel
        backbone = DiffusersBackbone(network(**_merged("unet", unet, derived)), time="discrete", schedule=self.schedule)
        self.denoiser = Denoiser(backbone, prediction)

    @property
    def unet(self) -> Any:
        """The UNet2DConditionModel of diffusers."""
        return self.denoiser.network.network

    @property
    def shape(self) -> torch.Size:
        """Shape of one sample's latents, (C, h, w)."""
        side: int = self.unet.config.sample_size
        return torch.Size((self.codec.channels, side, side))

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        condition = self.encode_prompt(condition, len(x_t))
        if condition is None or condition.embeddings is None:
            condition = Condition(embeddings=expanded(self.encode_texts([""]), len(x_t)))
        return self.denoiser(x_t, t, condition, self.schedule)

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embeddings (B, L, E) of B texts, differentiable in the text encoder. Long texts are truncated."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        device = next(self.text_encoder.parameters()).device
        return TextEmbeddings(self.text_encoder(tokens.input_ids.to(device))[0])

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        if condition is None or condition.prompt is None or condition.embeddings is not None:
            return condition
        texts = listed(condition.prompt)
        embeddings = self.encode_texts(texts)
        if isinstance(condition.prompt, str) and rows is not None:
            embeddings = expanded(embeddings, rows)
        return replace(condition, embeddings=embeddings)

    def encode(self, x: Tensor) -> Tensor:
        return self.codec.encode(x) if x.shape[1] == 3 else x

    def decode(self, x: Tensor) -> Tensor:
        return x if x.shape[1] == 3 else self.codec.decode(x)

    def denoiser_for(self, user: str) -> Denoiser:
        return self.denoiser

    def save(self, folder: str | Path) -> None:
        """Write the model as a StableDiffusionPipeline, atomically.

        Args:
            folder: the destination.

        Raises:
            ValueError: if a weight is NaN or infinite.
        """
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        scheduler_class: Any = DDIMScheduler
        pipeline_class: Any = StableDiffusionPipeline
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        kind = {"epsilon": "epsilon", "v": "v_prediction"}[self.denoiser.prediction]
        scheduler = scheduler_class(
            **betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=kind
        )
        pipeline = pipeline_class(
            self.codec.vae, self.text_encoder, self.tokenizer, self.unet, scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        require_finite_weights(self, folder)
        with atomic_folder(Path(folder)) as draft:
            pipeline.save_pretrained(draft)


def _merged(key: str, settings: Mapping[str, Any], derived: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and derived settings. Raises ValueError if they overlap."""
    if overlap := sorted(settings.keys() & derived.keys()):
        raise ValueError(f"{key}.{overlap[0]}: this follows from the other settings; leave it out")
    return {**settings, **derived}
