"""Counterfeit checkpoints of the multimodal language models: load, look, pad and answer like the real ones."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from crossmed_plugins.mllm.counterfeit import ARCHITECTURES, Shape, solve_letter_head, write_checkpoint
from crossmed_plugins.mllm.counterfeit_text import (
    LETTERS,
    TEXT_FAMILIES,
    build_tokenizer,
    chat_prompt,
    encode_prompt,
    letter_ids,
    question_text,
)

CHATML = "<|im_start|>user\n{image}Q<|im_end|>\n<|im_start|>assistant\n"
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
PROMPTS = {
    "qwen2_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML.format(image=VISION),
    "qwen2_5_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML.format(image=VISION),
    "qwen3_vl": CHATML.format(image=VISION),
    "llava": "USER: <image>\nQ ASSISTANT:",
    "llava_onevision": CHATML.format(image="<image>\n"),
    "smolvlm": "<|im_start|>User:<image>Q<end_of_utterance>\nAssistant:",
    "idefics3": "<|im_start|>User:<image>Q<end_of_utterance>\nAssistant:",
    "internvl": CHATML.format(image="<IMG_CONTEXT>\n"),
    "gemma3": "<bos><start_of_turn>user\n<start_of_image>Q<end_of_turn>\n<start_of_turn>model\n",
    "mllama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>Q<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}
OPTIONS = ("nodule", "effusion", "cardiomegaly", "no finding")
SHORT = question_text("Which finding?", OPTIONS)
LONG = question_text("Which finding is seen in the left lung of this chest radiograph?", OPTIONS[::-1])


def picture(seed: int, width: int = 80, height: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def write(architecture: str) -> Path:
        folder: Path = tmp_path_factory.mktemp(architecture)
        write_checkpoint(folder, architecture)
        return folder

    return write


def load(folder: Path) -> tuple[Any, Any]:
    return AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder).eval()


def last_logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits[:, -1]
    return logits


def batch(processor: Any, images: list[Image.Image], texts: list[str]) -> Any:
    conversations = [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        for image, text in zip(images, texts, strict=True)
    ]
    return processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


def test_every_architecture_is_there() -> None:
    assert set(ARCHITECTURES) == set(PROMPTS) == set(TEXT_FAMILIES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_looks_and_reads_like_the_real_one(architecture: str, folder_of: Any) -> None:
    folder = folder_of(architecture)
    processor, model = load(folder)
    assert model.config.model_type == architecture
    assert not list(folder.glob("*.bin"))
    assert chat_prompt(processor, "Q") == PROMPTS[architecture]

    # The image changes the answer, and the right number of image tokens stands in the text (else forward raises).
    first = last_logits(model, encode_prompt(processor, picture(1), chat_prompt(processor, SHORT)))
    second = last_logits(model, encode_prompt(processor, picture(2), chat_prompt(processor, SHORT)))
    other = last_logits(model, encode_prompt(processor, picture(2, 150, 60), chat_prompt(processor, LONG)))
    assert (first - second).abs().max() > 0.01
    assert (second - other).abs().max() > 0.01

    # The two ways to make inputs agree, and left padding changes nothing.
    both = last_logits(model, batch(processor, [picture(1), picture(2, 150, 60)], [SHORT, LONG]))
    torch.testing.assert_close(both, torch.cat((first, other)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_letters_and_ends_are_single_tokens(architecture: str, folder_of: Any) -> None:
    processor, model = load(folder_of(architecture))
    family = TEXT_FAMILIES[architecture]
    tokenizer = processor.tokenizer
    for separator in ("", " "):
        ids = letter_ids(processor, picture(1), chat_prompt(processor, SHORT), separator=separator)
        assert len(set(ids)) == 4
        assert [tokenizer.decode(each) for each in ids] == [separator + letter for letter in LETTERS]
    for token in family.tokens():
        assert tokenizer.encode(token, add_special_tokens=False) == [tokenizer.convert_tokens_to_ids(token)]
    settings = model.generation_config
    assert settings.do_sample is False
    assert settings.eos_token_id == tokenizer.convert_tokens_to_ids(list(family.ends))
    assert settings.pad_token_id == tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids(family.pad)
    assert (tokenizer.encode("x")[0] == tokenizer.bos_token_id) == family.adds_bos


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_arguments_same_bytes(architecture: str, folder_of: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    write_checkpoint(tmp_path, architecture)
    assert torch.equal(torch.get_rng_state(), state)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files == {path.name: path.read_bytes() for path in folder_of(architecture).iterdir()}


def test_another_seed_makes_other_weights(folder_of: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "qwen2_vl", seed=1)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path, folder_of("qwen2_vl"))]
    assert weights[0] != weights[1]


def test_shape_and_texts_are_followed(tmp_path: Path) -> None:
    shape = Shape(hidden=32, heads=2, kv_heads=1, layers=1, mlp=48, vision_layers=1, grid=2, vocabulary=4096)
    for architecture in ("qwen2_vl", "llava"):
        write_checkpoint(tmp_path / architecture, architecture, shape=shape, texts=["one text"])
        text = json.loads((tmp_path / architecture / "config.json").read_text())["text_config"]
        assert (text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]) == (32, 1, 4096)
        processor, model = load(tmp_path / architecture)
        assert last_logits(model, encode_prompt(processor, picture(1), chat_prompt(processor, SHORT))).shape[-1] == 4096


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown architecture 'gpt'"):
        write_checkpoint(tmp_path, "gpt")
    with pytest.raises(ValueError, match="the vocabulary only 64"):
        write_checkpoint(tmp_path, "llava", shape=Shape(vocabulary=64))
    with pytest.raises(ValueError, match="at least 8 items"):
        solve_letter_head(tmp_path, [(picture(1), "?")])


def test_every_text_can_be_encoded_and_decoded() -> None:
    tokenizer = build_tokenizer(TEXT_FAMILIES["qwen2_vl"], [])
    for text in ("μCT of 3 × 4 mm, naïve", "日本語 \n\n  \t<x>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


# -- the letter head --------------------------------------------------------------------------------------------------


def questions(count: int, seed: int) -> list[tuple[Image.Image, str]]:
    rng = np.random.default_rng(seed)
    asked = ("Which finding is visible?", "What is wrong with this patient?", "Which of these is in the image?")
    findings = ("nodule", "mass", "effusion", "edema", "fracture", "no finding", "pneumothorax", "atelectasis")
    return [
        (
            picture(int(rng.integers(1 << 30)), *rng.integers(56, 160, 2).tolist()),
            question_text(asked[rng.integers(len(asked))], rng.permutation(findings)[:4].tolist()),
        )
        for _ in range(count)
    ]


def answers(processor: Any, model: Any, items: list[tuple[Image.Image, str]]) -> list[str]:
    written = []
    for image, text in items:
        inputs = encode_prompt(processor, image, chat_prompt(processor, text))
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
        written.append(processor.tokenizer.decode(ids))
    return written


@pytest.mark.parametrize("architecture", ["qwen2_vl", "llava"])
def test_a_solved_head_answers_with_one_letter(architecture: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, architecture)
    before = {path.name for path in tmp_path.iterdir()}
    solve_letter_head(tmp_path, questions(40, seed=0))
    assert {path.name for path in tmp_path.iterdir()} == before
    processor, model = load(tmp_path)
    separator, end = TEXT_FAMILIES[architecture].separator, processor.tokenizer.eos_token
    held_out = questions(40, seed=1)
    first = answers(processor, model, held_out)
    letters = Counter(answer for answer in first if answer in {f"{separator}{letter}{end}" for letter in LETTERS})
    assert letters.total() >= 36
    assert len(letters) >= 3

    images, texts = zip(*held_out, strict=True)
    blank = [(Image.new("RGB", image.size), text) for image, text in held_out]
    assert answers(processor, model, blank) != first
    assert answers(processor, model, list(zip(images, texts[1:] + texts[:1], strict=True))) != first
