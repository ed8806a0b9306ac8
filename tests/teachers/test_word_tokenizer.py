"""The tokenizer of given words."""

import pytest

from scoredistill.teachers.latent_diffusion import word_tokenizer

TEXTS = ["a red mug, front view", "a snowman, back view"]


def test_known_words_are_one_token_each_and_others_are_spelled(tmp_path):
    from transformers import CLIPTokenizer

    made = word_tokenizer(TEXTS, 12)
    tokens = made.convert_ids_to_tokens(made("A RED snowman,  back view").input_ids)
    assert tokens == ["<|startoftext|>", "a</w>", "red</w>", "snowman</w>", ",</w>", "back</w>", "view</w>", tokens[-1]]
    spelled = made.convert_ids_to_tokens(made("zig").input_ids)[1:-1]
    assert "".join(spelled) == "zig</w>"
    assert len(spelled) > 1
    assert len(made("a b c d e f g h i j k l m n o p", truncation=True).input_ids) == 12
    assert made.pad_token == made.eos_token == "<|endoftext|>"
    made.save_pretrained(tmp_path)
    assert CLIPTokenizer.from_pretrained(tmp_path)(TEXTS).input_ids == made(TEXTS).input_ids
    assert word_tokenizer(TEXTS, 12).get_vocab() == made.get_vocab()


@pytest.mark.parametrize(("texts", "length"), [([" "], 12), ([], 12), (TEXTS, 2)])
def test_missing_words_and_a_short_length_are_refused(texts, length):
    with pytest.raises(ValueError, match="needs at least one word and a length of 3"):
        word_tokenizer(texts, length)
