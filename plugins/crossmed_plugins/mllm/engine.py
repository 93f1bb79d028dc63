"""Option letters scored by one batched forward pass: no decoding, nothing to parse.

A prompt is read up to the place where the answer would begin, and the probabilities of the option letters are taken
there. Work that prompts share is done once: the vision features of an image, and, over the cyclic orders of an item's
options, the whole beginning of the prompt (system message, image, question), whose keys and values are repeated for the
tails. Prompts are sorted by length into batches of bounded size, so little is padded; padding is on the left, with
explicit positions, and only the last position meets the vocabulary (152k rows in Qwen2-VL).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from crossmed_core.types import ImageRef
from crossmed_plugins.mllm.architectures import Architecture
from crossmed_plugins.mllm.batching import Batcher
from crossmed_plugins.mllm.vision import Eyes, Features, Prepared, as_encoder_output

LEAST_HEAD = 8
"""Tokens that all prompts of a batch must share at the start to be computed apart."""


@dataclass
class Asked:
    """A prompt whose option letters are to be scored.

    Attributes:
        ids: Its tokens, the image's placeholders among them.
        image: The image; None if there is none.
        letters: For each option, the tokens that begin an answer with its letter.
        group: Prompts of one group begin alike and are worth computing together.
    """

    ids: list[int]
    image: ImageRef | None
    letters: tuple[tuple[int, ...], ...]
    group: int = 0


@dataclass(frozen=True)
class LetterScores:
    """What a model thinks of the option letters.

    Attributes:
        options: Probability of each option, given that one of them is said; they sum to 1. NaN if the model's output is
            not a number.
        mass: Probability, before that, that one of the letters is said at all.
    """

    options: tuple[float, ...]
    mass: float


class Engine:
    """Scores prompts with one model.

    Args:
        model: A transformers image-text model, in eval mode on its device.
        eyes: Its vision side.
        architecture: Facts of it.
        batcher: Bounds the batches.
        pad: Token that fills the left.
    """

    def __init__(
        self,
        model: Any,
        eyes: Eyes,
        architecture: Architecture,
        batcher: Batcher,
        *,
        pad: int,
    ) -> None:
        self.model = model
        self.eyes = eyes
        self.architecture = architecture
        self.batcher = batcher
        self.pad = pad
        self.inner = model.model
        known = inspect.signature(model.forward).parameters
        self._takes_features = "mm_encoder_outputs" in known
        # Gemma 3 needs to know which tokens are of an image; it calls them by another name than Qwen does.
        self._types = next((name for name in ("token_type_ids", "mm_token_type_ids") if name in known), None)
        self.image_token = int(getattr(model.config, "image_token_id", -1))

    @property
    def reuses(self) -> bool:
        """Whether vision features can be given to this model."""
        return self.architecture.reuse and self._takes_features

    def score(self, asked: Sequence[Asked], prepared: dict[ImageRef, Prepared]) -> list[LetterScores]:
        """Score prompts.

        Args:
            asked: The prompts.
            prepared: Their images.

        Returns:
            One per prompt, in order; the same whatever else is asked with it, up to rounding.

        Raises:
            torch.OutOfMemoryError: If a single prompt does not fit.
        """
        results: dict[int, LetterScores] = {}
        groups: dict[int, list[int]] = {}
        for place, one in enumerate(asked):
            groups.setdefault(one.group, []).append(place)
        shared: dict[int, list[tuple[list[int], int]]] = {}
        single: list[int] = []
        for places in groups.values():
            begin = self._common_beginning([asked[place] for place in places])
            if begin:
                shared.setdefault(len(places), []).append((places, begin))
            else:
                single += places
        with torch.inference_mode():
            for with_image in (False, True):
                rows = [place for place in single if (asked[place].image is not None) is with_image]
                self.batcher.run(
                    rows,
                    lambda place: len(asked[place].ids),
                    lambda part: self._single(part, asked, prepared, results),
                )
            for some in shared.values():
                for with_image in (False, True):
                    wide = [one for one in some if (asked[one[0][0]].image is not None) is with_image]
                    self.batcher.run(
                        wide,
                        lambda one: _shared_cost(one, asked),
                        lambda part: self._shared(part, asked, prepared, results),
                    )
        return [results[place] for place in range(len(asked))]

    def _common_beginning(self, group: Sequence[Asked]) -> int:
        """Return how many tokens all prompts of a group begin with; 0 if computing them apart is as well."""
        if len(group) < 2 or not self.architecture.prefix or len({one.image for one in group}) > 1:
            return 0
        shortest = min(len(one.ids) for one in group) - 1  # each tail keeps a token, to be read at
        first = group[0].ids
        begin = next(
            (place for place in range(shortest) if any(one.ids[place] != first[place] for one in group)), shortest
        )
        whole_image = begin > 0 and all(self.image_token not in one.ids[begin:] for one in group)
        return begin if whole_image else 0

    # -- one pass ----------------------------------------------------------------------------------

    def _single(
        self,
        places: list[int],
        asked: Sequence[Asked],
        prepared: dict[ImageRef, Prepared],
        results: dict[int, LetterScores],
    ) -> None:
        rows = [asked[place] for place in places]
        ids, mask = self._padded([one.ids for one in rows])
        images = [one.image for one in rows if one.image is not None]
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=self.positions(ids, mask, [prepared[ref] for ref in images]),
            use_cache=False,
            logits_to_keep=1,
            **self._seen(ids, images, prepared),
        ).logits[:, -1]
        self._read(places, asked, logits, results)

    def _shared(
        self,
        many: list[tuple[list[int], int]],
        asked: Sequence[Asked],
        prepared: dict[ImageRef, Prepared],
        results: dict[int, LetterScores],
    ) -> None:
        """Compute the beginnings once, repeat their keys and values, then read all tails.

        What all beginnings share, the system message, is computed once for the whole batch.
        """
        firsts = [asked[places[0]] for places, _ in many]
        begins_ids = [one.ids[:begin] for one, (_, begin) in zip(firsts, many, strict=True)]
        head = self._common_head(begins_ids)
        rest, rest_mask = self._padded([row[head:] for row in begins_ids])
        ids = torch.cat([rest.new_tensor(begins_ids[0][:head]).expand(len(rest), -1), rest], dim=1)
        mask = torch.cat([rest_mask.new_ones(len(rest), head), rest_mask], dim=1)
        images = [one.image for one in firsts if one.image is not None]
        positions = self.positions(ids, mask, [prepared[ref] for ref in images])
        cache = DynamicCache(config=self.model.config.get_text_config())
        if head:
            first = positions[..., :1, :head]
            self.inner(input_ids=ids[:1, :head], position_ids=first, past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(rest))
        self.inner(
            input_ids=rest,
            attention_mask=mask,
            position_ids=positions[..., head:],
            past_key_values=cache,
            use_cache=True,
            **self._seen(rest, images, prepared),
        )
        orders = len(many[0][0])
        cache.batch_repeat_interleave(orders)
        places = [place for group, _ in many for place in group]
        begins = [begin for group, begin in many for _ in group]
        tails, tail_mask = self._padded([asked[place].ids[begin:] for place, begin in zip(places, begins, strict=True)])
        # The next position follows the largest before it: an image may take fewer positions than tokens.
        following = positions.reshape(-1, *positions.shape[-2:]).amax(dim=(0, 2)).repeat_interleave(orders) + 1
        tail_positions = following[:, None] + (tail_mask.cumsum(-1) - 1).clamp_min(0)
        if positions.ndim == 3:
            tail_positions = tail_positions.expand(positions.shape[0], -1, -1)
        logits = self.model(
            input_ids=tails,
            attention_mask=torch.cat([mask.repeat_interleave(orders, dim=0), tail_mask], dim=1),
            position_ids=tail_positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._read(places, asked, logits, results)

    def _common_head(self, rows: Sequence[Sequence[int]]) -> int:
        """Return how many tokens before the image all beginnings share; 0 if one pass more would not pay."""
        limit = min(len(row) for row in rows) - 1
        if self.image_token in rows[0]:
            limit = min(limit, rows[0].index(self.image_token))
        head = next((place for place in range(limit) if any(row[place] != rows[0][place] for row in rows)), limit)
        return head if len(rows) > 1 and head >= LEAST_HEAD else 0

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad on the left: int64 ids and mask, both (rows, longest)."""
        longest = max(len(row) for row in rows)
        ids = torch.tensor([[self.pad] * (longest - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        device = next(self.model.parameters()).device
        return ids.to(device), mask.to(device)

    def positions(self, ids: torch.Tensor, mask: torch.Tensor, images: Sequence[Prepared]) -> torch.Tensor:
        """Return positions that padding does not shift: (rows, length), or (3, rows, length) for M-RoPE."""
        plain = (mask.cumsum(-1) - 1).clamp_min(0)
        if not hasattr(self.inner, "get_rope_index"):
            return plain
        if not images:
            return plain.expand(3, -1, -1)
        grids = torch.cat([one.tensors["image_grid_thw"] for one in images]).to(ids.device)
        positions: torch.Tensor
        positions, _ = self.inner.get_rope_index(
            ids, mm_token_type_ids=(ids == self.image_token).int(), image_grid_thw=grids, attention_mask=mask
        )
        return positions

    def _seen(
        self, ids: torch.Tensor, images: Sequence[ImageRef], prepared: dict[ImageRef, Prepared]
    ) -> dict[str, Any]:
        """Return what a forward pass is given besides text: features of each row's image, in the rows' order."""
        types = self.token_types(ids)
        if not images:
            return types
        distinct = {ref: prepared[ref] for ref in images}
        found: dict[ImageRef, Features] = self.eyes.features(distinct, self.batcher.budget)
        return {**self.features_for([found[ref] for ref in images]), **types}

    def token_types(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return 1 for tokens of an image, 0 for others, under the name that the model knows; {} if it knows none."""
        return {self._types: (ids == self.image_token).int()} if self._types else {}

    def features_for(self, features: Sequence[Features]) -> dict[str, Any]:
        """Return the argument of the model that takes features instead of pixels."""
        return as_encoder_output(features, listed=not self.architecture.one_tensor)

    def _read(
        self, places: Sequence[int], asked: Sequence[Asked], logits: torch.Tensor, results: dict[int, LetterScores]
    ) -> None:
        for place, row in zip(places, logits.float(), strict=True):
            results[place] = read_letters(row, asked[place].letters)


def read_letters(logits: torch.Tensor, letters: Sequence[Sequence[int]]) -> LetterScores:
    """Turn the next token's logits into scores of the options, a letter's spellings summed.

    Args:
        logits: float32 (vocabulary,).
        letters: Tokens of each option's letter.
    """
    log_p = torch.log_softmax(logits, dim=0)
    each = torch.stack([torch.logsumexp(log_p[list(tokens)], dim=0) for tokens in letters])
    options = torch.softmax(each, dim=0)
    return LetterScores(tuple(options.tolist()), float(each.logsumexp(dim=0).exp()))


def _shared_cost(one: tuple[list[int], int], asked: Sequence[Asked]) -> int:
    """Return the tokens that a group adds to a batch: its beginning once and all tails, padded."""
    places, begin = one
    return begin + len(places) * max(len(asked[place].ids) - begin for place in places)
