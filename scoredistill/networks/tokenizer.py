"""A tokenizer that knows given words, each as one token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def word_tokenizer(texts: Sequence[str], length: int) -> Any:
    """CLIP's byte-pair encoding, in which every word of the texts is one token and all others are spelled.

    Neural Machine Translation of Rare Words with Subword Units, 2015, arXiv:1508.07909.

    Args:
        texts: whose words it knows, at least one.
        length: most tokens of a text, begin and end among them, >= 3.

    Returns:
        a CLIPTokenizer of transformers; the same texts give the same.

    Raises:
        ValueError: if there is no word, or no room for one.
    """
    if length < 3 or not any(text.strip() for text in texts):
        raise ValueError(f"need at least one word and 3 tokens of length; got {len(texts)} texts and {length}")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer, trained.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Letters and last letters come first, in this order: left to the trainer it would change from run to run, and with
    # it which pairs are merged. The vocabulary is so large that merging goes on until each word is one token.
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
