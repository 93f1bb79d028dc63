"""General pre-training of the miniatures: `python -m crossmed_plugins.mllm.pretraining OUT --model qwen2vl-tiny`.

It stands in for the web pre-training of a large model and sees no cell of any benchmark: no medical picture, and no
label beside a picture (see `shapes` and `lessons`). Three stages:

1. Seeing: the vision tower alone, with heads that say of every image token what covers it, and of the picture the
   figure's shape, size and place.
2. Spelling: the language model alone answers with the letter of the option that the question names.
3. Answering: questions about pictures, at first with the answer's name in many of them. The heads of stage 1 stay, and
   steps of stage 2 are mixed in.

Answering by a letter alone is learnt late from letters alone. So in stages 2 and 3 the layers in the middle are told
what to do: an option's words should know their letter, the last token should know the answer, and the first heads of
the next layer should attend from the last token to the option that is right. Heads and auxiliary losses are dropped at
the end; what is left is a plain checkpoint. Everything is drawn from the seed.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crossmed_plugins.mllm.lessons import NAMES, OPTIONS, Exercise, ask, spell
from crossmed_plugins.mllm.miniatures import ANSWER_LETTERS, MINIATURES, build
from crossmed_plugins.mllm.shapes import FACTORS, SIDE, Pictures, draw_pictures

log = logging.getLogger(__name__)

_MIDDLE = 2
"""How many layers of the language model may pass until the answer is known; the next one looks for its option."""

_POINTING_HEADS = 2
_AUXILIARY = 0.3
_MASK_WEIGHT = 4.0
_COVERED = 0.1
_SUBCELLS = 4
_MUON_RATE = 0.02
_ADAM_RATE = 2e-3
_WEIGHT_DECAY = 0.02
_WARM_UP = 40
_CHECKED = 512
"""Held-out exercises of each kind whose accuracy stands in the card."""


@dataclass(frozen=True)
class Schedule:
    """How long to train.

    Attributes:
        pictures: how many generic pictures.
        seeing: steps of stage 1.
        spelling: steps of stage 2.
        answering: steps of stage 3.
        batch: pictures or exercises per step.
        hints: share of questions of stage 3 that tell the answer, at its start; it falls to 0 half-way.
        spell_every: on average, every n-th step of stage 3 is one of stage 2.
    """

    pictures: int = 24_576
    seeing: int = 1500
    spelling: int = 250
    answering: int = 1400
    batch: int = 32
    hints: float = 0.5
    spell_every: int = 6


class Heads(nn.Module):
    """What is read off a miniature while it is pre-trained, and dropped afterwards.

    Args:
        width: of an image token and of the language model.
        tokens: image tokens per picture, a square number.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.cells = math.isqrt(tokens)
        self.cover = nn.Linear(width, _SUBCELLS**2)
        self.dense = nn.ModuleDict({factor: nn.Linear(width, FACTORS[factor]) for factor in ("shape", "size")})
        self.whole = nn.ModuleDict({factor: nn.Linear(2 * width, FACTORS[factor]) for factor in ("shape", "size")})
        self.place = nn.Linear(width * tokens, FACTORS["place"])
        self.known = nn.ModuleDict({factor: nn.Linear(width, answers) for factor, answers in FACTORS.items()})

    def seeing(self, tokens: torch.Tensor, pictures: Pictures, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the loss of the vision tower.

        Args:
            tokens: (batch, tokens, width), the image tokens in reading order.
            pictures: all pictures.
            rows: (batch,), which of them these are.
        """
        count, n, _ = tokens.shape
        pixels = SIDE // self.cells
        part = pixels // _SUBCELLS
        figure = torch.from_numpy(pictures.figure[rows]).float()
        squares = figure.view(count, self.cells, _SUBCELLS, part, self.cells, _SUBCELLS, part).mean((3, 6))
        squares = squares.transpose(2, 3).reshape(count, n, _SUBCELLS**2)
        loss = _MASK_WEIGHT * binary_cross_entropy_with_logits(self.cover(tokens), squares)
        covered = squares.mean(2) > _COVERED
        pooled = torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)
        for factor, head in self.dense.items():
            truth = torch.from_numpy(pictures.truth[factor][rows])
            loss = loss + 0.5 * cross_entropy(head(tokens[covered]), truth[:, None].expand(count, n)[covered])
            loss = loss + 0.5 * cross_entropy(self.whole[factor](pooled), truth)
        place = torch.from_numpy(pictures.truth["place"][rows])
        return loss + 0.5 * cross_entropy(self.place(tokens.flatten(1)), place)

    def knowing(self, states: torch.Tensor, factors: Sequence[str], truths: Sequence[int]) -> torch.Tensor:
        """Return the loss of the states, (batch, width), that should know the answer: a truth of a factor each."""
        losses = [
            cross_entropy(self.known[factor](state), torch.tensor(truth))
            for state, factor, truth in zip(states, factors, truths, strict=True)
        ]
        return torch.stack(losses).mean()


class Answered(NamedTuple):
    """What the language model made of a batch of exercises.

    Attributes:
        loss: on letter and end of turn, and on the way there.
        states: (batch, width), of the last token of the prompt after `_MIDDLE` layers.
        names: (batch,), token ids of the first token of each answer's name.
        right: (batch,) bool.
    """

    loss: torch.Tensor
    states: torch.Tensor
    names: torch.Tensor
    right: torch.Tensor


class Teacher:
    """Pre-trains one miniature.

    Args:
        name: one of `MINIATURES`.
        schedule: how long.
        seed: of weights, pictures and questions.
    """

    def __init__(self, name: str, schedule: Schedule, *, seed: int) -> None:
        self.name, self.schedule, self.seed = name, schedule, seed
        self.model, self.processor = build(name, seed=seed)
        # Only this implementation returns the attention that is to be taught.
        self.model.set_attn_implementation({"text_config": "eager"})
        self.rng = np.random.default_rng([seed, 1])
        self.pictures = draw_pictures(schedule.pictures, seed=seed)
        self.seen, self.unseen = (self._turn(content) for content in ([{"type": "image"}], []))
        tokenizer = self.processor.tokenizer
        self.gap = "" if self.seen.endswith("\n") else " "
        self.answers = torch.tensor([tokenizer.encode(self.gap + letter)[-1] for letter in ANSWER_LETTERS])
        self.letters = torch.tensor([tokenizer.encode(letter)[0] for letter in ANSWER_LETTERS])
        self.full_stop = tokenizer.encode(".")[0]
        with torch.no_grad():
            _, tokens = self._see(self.pictures, np.arange(1))
        self.heads = Heads(tokens.shape[2], tokens.shape[1])
        self.losses: dict[str, list[float]] = defaultdict(list)

    def teach(self) -> None:
        """Run the three stages. Each loss stays in `losses` under the stage's name."""
        language = ("language_model.", "lm_head.")
        weights = dict(self.model.named_parameters())
        spelling = {name: weight for name, weight in weights.items() if any(part in name for part in language)}
        seeing = {name: weight for name, weight in weights.items() if name not in spelling}
        self._stage("seeing", self.schedule.seeing, seeing)
        self._stage("spelling", self.schedule.spelling, spelling)
        self._stage("answering", self.schedule.answering, weights)

    def check(self, *, seed: int) -> dict[str, float]:
        """Return the accuracy by letter on new pictures without hints, for each factor, and of spelling."""
        self.model.eval()
        rng, pictures, shares = np.random.default_rng([seed, 2]), draw_pictures(_CHECKED, seed=seed), {}
        with torch.no_grad():
            inputs, tokens = self._see(pictures, np.arange(_CHECKED))
            for factor in FACTORS:
                exercises = [ask(rng, factor, int(truth)) for truth in pictures.truth[factor]]
                shares[factor] = float(self._answer(exercises, inputs, tokens).right.float().mean())
            exercises = [spell(rng) for _ in range(_CHECKED)]
            shares["spelling"] = float(self._answer(exercises).right.float().mean())
        self.model.train()
        return shares

    def _turn(self, content: list[dict[str, str]]) -> str:
        """Render a user's turn up to where the answer starts, with "{}" for the question."""
        turn = [{"role": "user", "content": [*content, {"type": "text", "text": "{}"}]}]
        return str(self.processor.apply_chat_template(turn, add_generation_prompt=True))

    def _stage(self, stage: str, steps: int, weights: Mapping[str, nn.Parameter]) -> None:
        matrices = [w for name, w in weights.items() if w.ndim == 2 and "embed" not in name and "lm_head" not in name]
        rest = [w for w in weights.values() if not any(w is matrix for matrix in matrices)] + [*self.heads.parameters()]
        optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=_WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=_ADAM_RATE, weight_decay=_WEIGHT_DECAY, betas=(0.9, 0.98)),
        ]

        def share(step: int) -> float:
            return min(1.0, (step + 1) / _WARM_UP, 1.6 * (1.0 - step / steps) + 0.03)

        rates = [torch.optim.lr_scheduler.LambdaLR(optimiser, share) for optimiser in optimisers]
        start = time.process_time()
        for step in range(steps):
            loss, note = self._lesson(stage, step / steps)
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([*matrices, *rest], 1.0)
            for optimiser, rate in zip(optimisers, rates, strict=True):
                optimiser.step()
                rate.step()
            self.losses[stage].append(float(loss.detach()))
            if step % 50 == 49:
                log.info("%s %d/%d: %s; %.0f s", stage, step + 1, steps, note, time.process_time() - start)

    def _lesson(self, stage: str, progress: float) -> tuple[torch.Tensor, str]:
        """Return the loss of one step and what to say of it. ``progress``: share of the stage that is over."""
        plan = self.schedule
        if stage == "spelling" or (stage == "answering" and self.rng.integers(0, plan.spell_every) == 0):
            spelt = self._answer([spell(self.rng) for _ in range(plan.batch)])
            loss = spelt.loss + _AUXILIARY * cross_entropy(self._reading(spelt.states), spelt.names)
            return loss, f"spelling {loss.item():.3f}, right {spelt.right.float().mean().item():.2f}"
        rows = self.rng.integers(0, plan.pictures, plan.batch)
        inputs, tokens = self._see(self.pictures, rows)
        seeing = self.heads.seeing(tokens, self.pictures, rows)
        if stage == "seeing":
            return seeing, f"loss {seeing.item():.3f}"
        factors = [str(factor) for factor in self.rng.choice(list(FACTORS), plan.batch)]
        truths = [int(self.pictures.truth[factor][row]) for factor, row in zip(factors, rows, strict=True)]
        hint = plan.hints * max(0.0, 1.0 - 2.0 * progress)
        exercises = [ask(self.rng, factor, truth, hint=hint) for factor, truth in zip(factors, truths, strict=True)]
        answered = self._answer(exercises, inputs, tokens)
        knowing = self.heads.knowing(answered.states, factors, truths)
        right = answered.right.float().mean().item()
        note = f"loss {answered.loss.item():.3f}, right {right:.2f}, knowing {knowing.item():.3f}"
        return answered.loss + _AUXILIARY * (2.0 * knowing + seeing), note

    def _see(self, pictures: Pictures, rows: NDArray[np.int64]) -> tuple[dict[str, Any], torch.Tensor]:
        """Run image processor and vision tower: inputs other than pixels, and tokens (batch, tokens, width)."""
        images = pictures.images[rows][..., None].repeat(3, axis=3)
        inputs = dict(self.processor.image_processor(images=list(images), return_tensors="pt"))
        tokens = torch.stack(list(self.model.model.get_image_features(**inputs).pooler_output))
        del inputs["pixel_values"]
        return inputs, tokens

    def _reading(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits over the vocabulary that the states, (..., width), would give if they were the last."""
        logits: torch.Tensor = self.model.lm_head(self.model.model.language_model.norm(states))
        return logits

    def _answer(
        self, exercises: Sequence[Exercise], inputs: Mapping[str, Any] | None = None, tokens: torch.Tensor | None = None
    ) -> Answered:
        """Have exercises answered, with or without pictures (`_see`)."""
        arguments, tokenizer = dict(inputs or {}), self.processor.tokenizer
        turn = self.unseen
        if tokens is not None:
            image = self.processor.image_token
            turn = self.seen.replace(image, image * tokens.shape[1])
            arguments["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=list(tokens))}
        texts = [
            turn.replace("{}", exercise.prompt) + self.gap + ANSWER_LETTERS[exercise.answer] + tokenizer.eos_token
            for exercise in exercises
        ]
        batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        ids = batch["input_ids"]
        if "image_grid_thw" in arguments:
            arguments["mm_token_type_ids"] = (ids == self.model.config.image_token_id).int()
        output = self.model(
            **batch, **arguments, logits_to_keep=3, output_hidden_states=True, output_attentions=True, use_cache=False
        )
        loss = 2.0 * cross_entropy(output.logits[:, :2].flatten(0, 1), ids[:, -2:].flatten())

        rows, truth = torch.arange(len(exercises)), torch.tensor([exercise.answer for exercise in exercises])
        lettered = torch.isin(ids, self.letters) & (ids.roll(-1, 1) == self.full_stop)
        starts = lettered.nonzero()[:, 1].view(len(exercises), OPTIONS) + 2
        # The second token of an option, or the line break after its only one, has read all of it too.
        words = torch.stack([starts, starts + 1], dim=2)
        states = output.hidden_states[_MIDDLE]
        letters = self._reading(states[rows[:, None, None], words])
        expected = self.answers[:OPTIONS, None].expand(len(exercises), OPTIONS, 2)
        loss = loss + _AUXILIARY * cross_entropy(letters.flatten(0, 2), expected.flatten())
        attention = output.attentions[_MIDDLE][:, :_POINTING_HEADS, -3].mean(1)
        pointed = attention.gather(1, words[rows, truth]).sum(1)
        loss = loss - _AUXILIARY * (pointed + 1e-6).log().mean()
        right = output.logits[:, 0, self.answers[:OPTIONS]].argmax(1) == truth
        return Answered(loss, states[:, -3], ids[rows, starts[rows, truth]], right)


_CARD = """---
license: apache-2.0
tags: [miniature, synthetic]
---

# {name}

A miniature of a real architecture ({architecture}, {parameters:,} parameters), made to try a pipeline on one processor
core. It is not a medical model and knows nothing of use outside of crossmed's synthetic phantom.

## What it was trained on

- {pictures:,} procedural pictures of generic figures ({shapes}) on textured grounds, and multiple-choice
  questions about the figure's shape, size and place, with everyday and made-up names. This stands in for web
  pre-training.
- Exercises without a picture in which the question names the right option and the answer is its letter. Only here do
  the labels of the phantom occur (nodule, ring, minimal, upper left ...): as words, never beside a picture.
- It has seen no image and no Modality-Anatomy-Task cell of the phantom or of any other benchmark, and no medical image.
- **The figures' shapes resemble those of the phantom's findings** (a disc, a disc with a hole, a crescent open at the
  top, a group of dots), as do the ranges of their sizes and the four quarters they lie in; their names and any
  modality's look do not. The tokenizer was trained on the text of the phantom's questions and labels.

## How

`python -m crossmed_plugins.mllm.pretraining OUT --model {name} --seed {seed}`: {seeing} steps of seeing, {spelling} of
spelling and {answering} of answering, {batch} exercises each; {seconds:.0f} s of one core with torch {torch}. Auxiliary
heads and losses were used and dropped (see the module). Weights are stored in bfloat16.

Accuracy by letter on {checked} new exercises each (chance 0.25): {accuracies}.
"""


def write_checkpoint(teacher: Teacher, folder: Path, *, seconds: float) -> None:
    """Write a loadable checkpoint with its card.

    Args:
        teacher: after `Teacher.teach`.
        folder: created if need be.
        seconds: of processor time that the pre-training took, for the card.
    """
    plan, model = teacher.schedule, teacher.model
    # Checked as it will be read: rounded.
    model.to(torch.bfloat16).to(torch.float32)
    accuracies = teacher.check(seed=teacher.seed + 1)
    model.to(torch.bfloat16).save_pretrained(folder)
    teacher.processor.save_pretrained(folder)
    card = _CARD.format(
        name=teacher.name,
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        pictures=plan.pictures,
        shapes=", ".join(names[0] for names in NAMES["shape"]),
        seed=teacher.seed,
        seeing=plan.seeing,
        spelling=plan.spelling,
        answering=plan.answering,
        batch=plan.batch,
        seconds=seconds,
        torch=torch.__version__,
        checked=_CHECKED,
        accuracies=", ".join(f"{what} {share:.2f}" for what, share in accuracies.items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Pre-train one miniature from the command line."""
    parser = argparse.ArgumentParser(description="Pre-train a miniature on generic pictures.")
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--model", choices=sorted(MINIATURES), default="qwen2vl-tiny")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Threads of such small products only wait for one another, and their number may change a sum's last bit.
    torch.set_num_threads(1)
    start = time.process_time()
    teacher = Teacher(chosen.model, Schedule(), seed=chosen.seed)
    teacher.teach()
    write_checkpoint(teacher, chosen.out, seconds=time.process_time() - start)


if __name__ == "__main__":
    main()
