"""A CLIP small enough to be trained from scratch within a minute on one core.

The architecture is open_clip's: the image tower of RN50 (Radford et al. 2021) with one block per stage and a quarter of
the width, and CLIP's text transformer with two layers. Nothing is pretrained, and the tokenizer knows the words of the
synthetic phantom: it shows how such a model composes, and is of no use for hospital images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from crossmed_core.vocabulary import words
from crossmed_plugins.clip.prompts import TEMPLATES as PROMPTS
from crossmed_plugins.clip.prompts import finding
from crossmed_plugins.phantom.dataset import LABELS
from crossmed_plugins.phantom.dataset import TEMPLATES as QUESTIONS
from crossmed_plugins.phantom.render import ANATOMIES, MODALITIES

VOCABULARY = 512
"""At most this many tokens: 256 bytes, what the words of the phantom are merged of, start and end of text."""
CONTEXT = 32
"""Tokens of a text, start and end included."""
START, END = "<start_of_text>", "<end_of_text>"

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 64, "heads": 4, "layers": 2},
}
"""As open_clip writes it (`model_cfg`)."""


def corpus() -> Iterator[str]:
    """Yield every question of the phantom and every prompt that is made of its options."""
    for modality, anatomy in product(map(words, MODALITIES), map(words, ANATOMIES)):
        for templates in QUESTIONS.values():
            yield from (template.format(modality=modality, anatomy=anatomy) for template in templates)
        for label in (label for labels in LABELS.values() for label in labels):
            fields = {"modality": modality, "anatomy": anatomy, "finding": finding(label)}
            yield from (template.format(**fields) for template in PROMPTS)


class SmallTokenizer:
    """Byte-level pair encoding, trained on `corpus`; called as open_clip's tokenizers are."""

    def __init__(self) -> None:
        self.context_length = CONTEXT
        self._tokenizer = Tokenizer(BPE())
        self._tokenizer.normalizer = normalizers.Lowercase()
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        self._tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY - 2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._tokenizer.train_from_iterator(corpus(), trainer)
        # Last, so that the end of a text has the highest number: CLIP finds it by that.
        self._tokenizer.add_special_tokens([START, END])
        self.start, self.end = (self._tokenizer.token_to_id(token) for token in (START, END))

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Return int64 (texts, CONTEXT), padded with 0; a longer text is cut off before its end token."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        found = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
        for row, encoded in enumerate(self._tokenizer.encode_batch(texts)):
            tokens = [self.start, *encoded.ids[: CONTEXT - 2], self.end]
            found[row, : len(tokens)] = torch.tensor(tokens)
        return found


@cache
def tokenizer() -> SmallTokenizer:
    """Return the tokenizer, trained once per process."""
    return SmallTokenizer()
