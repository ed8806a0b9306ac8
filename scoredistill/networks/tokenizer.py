"""A tokenizer with given words as single tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
