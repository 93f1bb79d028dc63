"""The miniatures: that their checkpoints are what the hub's are, and say what they are; and how they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import crossmed_plugins.mllm
from crossmed_plugins.mllm.lessons import NAMES, ask, spell
from crossmed_plugins.mllm.miniatures import ANSWER_LETTERS, MINIATURES
from crossmed_plugins.mllm.pretraining import Schedule, Teacher, write_checkpoint
from crossmed_plugins.mllm.shapes import FACTORS, draw_pictures
from crossmed_plugins.phantom.dataset import LABELS

CHECKPOINTS = Path(crossmed_plugins.mllm.__file__).parent / "checkpoints"
LIMIT = 4_000_000
SHORT = Schedule(pictures=256, seeing=6, spelling=12, answering=4, batch=8)

each = pytest.mark.parametrize("name", sorted(MINIATURES))
shipped = pytest.mark.parametrize("name", sorted(path.name for path in CHECKPOINTS.iterdir()))


def prompt(processor: Any, text: str) -> str:
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    return str(processor.apply_chat_template(turn, add_generation_prompt=True))


@shipped
def test_checkpoint_loads_and_answers_by_letter(name: str) -> None:
    folder = CHECKPOINTS / name
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(processor).__name__ in ("Qwen2VLProcessor", "LlavaProcessor")
    rng = np.random.default_rng(5)
    pictures = draw_pictures(48, seed=1234)
    exercises = [ask(rng, "place", int(truth)) for truth in pictures.truth["place"]]
    batch = processor(
        images=list(pictures.images[..., None].repeat(3, axis=3)),
        text=[prompt(processor, exercise.prompt) for exercise in exercises],
        padding=True,
        return_tensors="pt",
    )
    said = model.generate(**batch, max_new_tokens=4)[:, batch["input_ids"].shape[1] :]
    answers = [text.strip() for text in processor.batch_decode(said, skip_special_tokens=True)]
    right = [answer == ANSWER_LETTERS[exercise.answer] for answer, exercise in zip(answers, exercises, strict=True)]
    assert np.mean(right) > 0.6
    # The letter is the first token, the end of the turn the second.
    assert bool(torch.isin(said[:, 1], torch.tensor(model.generation_config.eos_token_id)).all())


@shipped
def test_letters_and_special_tokens_are_single(name: str) -> None:
    processor = transformers.AutoProcessor.from_pretrained(CHECKPOINTS / name)
    tokenizer = processor.tokenizer
    assert all(len(tokenizer.encode(token)) == 1 for token in tokenizer.all_special_tokens)
    start = prompt(processor, "Which?")
    gap = "" if start.endswith("\n") else " "
    before = tokenizer.encode(start)
    after = [tokenizer.encode(start + gap + letter) for letter in ANSWER_LETTERS]
    assert all(ids[:-1] == before for ids in after)
    assert len({ids[-1] for ids in after}) == len(ANSWER_LETTERS)
    words = [label for labels in LABELS.values() for label in labels]
    assert all(len(tokenizer.encode(f" {word}")) == len(word.split()) for word in words)


@shipped
def test_large_images_are_bounded(name: str) -> None:
    processor = transformers.AutoProcessor.from_pretrained(CHECKPOINTS / name)
    image = np.zeros((384, 384, 3), dtype=np.uint8)
    batch = processor(images=[image], text=[prompt(processor, "Which?")], return_tensors="pt")
    assert int((batch["input_ids"] == processor.image_token_id).sum()) == 64


@shipped
def test_checkpoint_is_small_and_its_card_says_what_it_saw(name: str) -> None:
    folder = CHECKPOINTS / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < LIMIT
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in (
        "not a medical model",
        "stands in for web pre-training",
        "no Modality-Anatomy-Task cell",
        "resemble those of the phantom's findings",
        "never beside a picture",
        "--seed 0",
        "steps",
    ):
        assert words in " ".join(card.split())


def test_pictures_are_a_function_of_seed_and_place() -> None:
    few, many, others = draw_pictures(5, seed=7), draw_pictures(300, seed=7), draw_pictures(5, seed=8)
    assert np.array_equal(few.images, many.images[:5])
    assert not np.array_equal(few.images, others.images)
    assert all(np.array_equal(few.truth[factor], many.truth[factor][:5]) for factor in FACTORS)
    assert many.images.shape == (300, 64, 64)
    assert many.figure.any((1, 2)).all()


def test_figures_are_where_and_as_large_as_they_should_be() -> None:
    pictures = draw_pictures(512, seed=3)
    column = np.arange(64) - 31.5
    middle = (pictures.figure * column).sum((1, 2)) / pictures.figure.sum((1, 2))
    eastern = pictures.truth["place"] % 2 == 1
    assert ((middle > 0) == eastern).mean() > 0.97
    area = [pictures.figure[pictures.truth["size"] == size].mean() for size in range(4)]
    assert area == sorted(area)


def test_picture_lessons_never_speak_the_phantoms_labels() -> None:
    labels = {word for labels in LABELS.values() for label in labels for word in label.split()}
    names = {word for answers in NAMES.values() for answer in answers for name in answer for word in name.split()}
    assert not labels & names
    rng = np.random.default_rng(0)
    spelt = " ".join(spell(rng).prompt for _ in range(200))
    assert "nodule" in spelt
    asked = " ".join(ask(rng, factor, 1, hint=0.5).prompt for factor in FACTORS for _ in range(200))
    assert not labels & set(asked.replace(".", " ").replace("?", " ").split())


def test_exercises_are_answered_by_their_letter() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        exercise = ask(rng, "shape", 2)
        option = exercise.prompt.split("\n")[1 + exercise.answer]
        assert option.split(". ")[1] in NAMES["shape"][2]


@each
def test_pretraining_learns_and_repeats_itself(name: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        teachers = [Teacher(name, SHORT, seed=0) for _ in range(2)]
        for teacher in teachers:
            teacher.teach()
    finally:
        torch.set_num_threads(threads)
    first, second = teachers
    assert first.losses == second.losses
    assert [len(first.losses[stage]) for stage in ("seeing", "spelling", "answering")] == [6, 12, 4]
    assert np.mean(first.losses["spelling"][-3:]) < np.mean(first.losses["spelling"][:3])
    write_checkpoint(first, tmp_path, seconds=1.0)
    names = {file.name for file in tmp_path.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"} <= names
