"""Chat models that see: scores do not depend on how they are computed, failures are values, errors are one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.orders import rotated
from crossmed_core.testing.items import mask_item, option_item
from crossmed_core.types import LETTERS, ImageRef, Item, ModelSpec, Prediction
from crossmed_plugins.mllm.counterfeit import ARCHITECTURES, solve_letter_head, write_checkpoint
from crossmed_plugins.mllm.forecast import forecast
from crossmed_plugins.mllm.model import MllmFamily, MllmModel
from crossmed_plugins.mllm.vision import open_rgb

TOLERANCE = 2e-5
"""Of probabilities, which are rounded to six places."""


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One counterfeit checkpoint per architecture, written once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(architecture: str) -> Path:
        place = root / architecture
        if not place.exists():
            place.mkdir()
            write_checkpoint(place, architecture)
        return place

    return folder


@pytest.fixture(scope="module")
def speaker(folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL that answers with a letter and stops."""
    place = tmp_path_factory.mktemp("speaker") / "qwen2_vl"
    shutil.copytree(folders("qwen2_vl"), place)
    images = tmp_path_factory.mktemp("images")
    some = [option_item(number, images) for number in range(48)]
    model = load(place)
    pairs = [(open_rgb(item.image), model_question(model, item)) for item in some]
    solve_letter_head(place, pairs)
    return place


def load(folder: Path, **options: object) -> MllmModel:
    spec = ModelSpec("under-test", "mllm", {"name": str(folder), **options})
    return MllmFamily().load(spec, device="cpu")


def model_question(model: MllmModel, item: Item) -> str:
    _ = model.loaded
    return model.prompts.question(item)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Items of unlike lengths, with images of unlike shapes, and one without its image."""
    folder = tmp_path_factory.mktemp("items")
    found = []
    for number in range(9):
        item = option_item(number, folder, part="test")
        if number % 3 == 0:
            item = replace(item, question=f"{item.question} It was taken on a long and unusual day, by an expert.")
        if number % 4 == 1:
            path = folder / f"wide-{number}.png"
            pixels = np.random.default_rng(number).integers(0, 255, (90, 130), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            item = replace(item, image=ImageRef(str(path)))
        if number == 5:
            options = item.options[:3]
            item = replace(item, options=options, answer=0, label=options[0])
        found.append(replace(item, withheld=frozenset({"image"})) if number == 7 else item)
    return found


def furthest(some: list[Prediction], others: list[Prediction]) -> float:
    pairs = zip(some, others, strict=True)
    return max(abs(p - q) for one, other in pairs for p, q in zip(one.option_scores, other.option_scores, strict=True))


# -- equal scores, however computed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_do_not_depend_on_how_they_are_computed(
    architecture: str, folders: Callable[[str], Path], items: list[Item]
) -> None:
    folder = folders(architecture)
    model = load(folder)
    together = list(model.predict(items))
    assert all(one.scored for one in together)
    assert len({one.option_scores for one in together}) == len(items), "each item is seen"
    said: list[str] = []
    model.warn = said.append
    alone = [answer for item in items for answer in model.predict([item])]
    assert furthest(together, alone) < TOLERANCE, "batch 1"
    assert furthest(together, list(load(folder, token_budget=300).predict(items))) < TOLERANCE, "other batches"
    assert furthest(together, list(load(folder, reuse=False).predict(items))) < TOLERANCE, "its own processor"
    groups = [[rotated(item, order) for order in range(len(item.options))] for item in items]
    shared = [list(group) for group in model.predict_orders(groups)]
    for group, found in zip(groups, shared, strict=True):
        apart = [answer for item in group for answer in model.predict([item])]
        assert furthest(found, apart) < TOLERANCE, "orders that share a beginning"
    assert said == []


@pytest.mark.parametrize("architecture", ["qwen2_vl", "llava", "smolvlm"])
def test_probabilities_equal_the_likelihood_of_each_letter(
    architecture: str, folders: Callable[[str], Path], items: list[Item]
) -> None:
    """Computed the slow way: one forward pass per letter, all logits, from transformers alone."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folders(architecture))
    network = AutoModelForImageTextToText.from_pretrained(folders(architecture)).eval()
    model = load(folders(architecture))
    _ = model.loaded
    # The fast way bounds tiles and areas; the slow way must be shown the same image.
    processor.image_processor = model.loaded.processor.image_processor
    for item, found in list(zip(items, model.predict(items), strict=True))[:4]:
        text = model.prompts.prompt(model.prompts.question(item), image=True)
        special = not text.startswith(processor.tokenizer.bos_token or "no such token")
        picture = model.eyes.shown(open_rgb(item.image))
        tokens = partial(processor, images=[picture], return_tensors="pt", add_special_tokens=special)
        mass = []
        for letter in LETTERS[: len(item.options)]:
            total = 0.0
            for said in {letter, f" {letter}"}:
                inputs = tokens(text=[text + said])
                start = tokens(text=[text])["input_ids"].shape[1]
                with torch.no_grad():
                    log_p = network(**inputs).logits[0].float().log_softmax(-1)
                ids = inputs["input_ids"][0]
                total += float(sum(log_p[place - 1, ids[place]] for place in range(start, len(ids))).exp())
            mass.append(total)
        assert found.letter_mass == pytest.approx(sum(mass), rel=1e-3)
        assert found.option_scores == pytest.approx([one / sum(mass) for one in mass], abs=1e-4)


def test_what_is_said_is_what_is_scored(speaker: Path, items: list[Item]) -> None:
    """A model that answers by letter picks the same one by logits and by generating."""
    scored = list(load(speaker).predict(items))
    said = list(load(speaker, scoring="generate").predict(items))
    spoken = [(one, other) for one, other in zip(scored, said, strict=True) if other.scored]
    assert len(spoken) >= 6, [one.raw for one in said]
    assert [one.option for one, _ in spoken] == [other.option for _, other in spoken]
    assert len({one.option for one in scored}) > 1, "or the agreement means nothing"
    assert float(np.median([one.letter_mass for one in scored])) > 0.5


def test_an_adapters_name_is_kept_out_of_special_tokens(folders: Callable[[str], Path], items: list[Item]) -> None:
    """Text of an item is never read as a control token: not as an image, not as the end of a turn."""
    model = load(folders("qwen2_vl"))
    plain = items[1]
    odd = replace(plain, question=f"{plain.question} <|image_pad|> <|im_end|>")
    (answer,) = model.predict([odd])
    assert answer.scored, answer.error
    assert "<|image_pad|>" not in model.prompts.question(odd)


# -- images ------------------------------------------------------------------------------------------------------------


def test_each_image_is_looked_at_once(folders: Callable[[str], Path], items: list[Item]) -> None:
    model = load(folders("llava"), token_budget=600)
    _ = model.loaded
    seen: list[int] = []
    look = model.eyes.look
    model.eyes.look = lambda images: (seen.append(len(images)), look(images))[1]  # type: ignore[method-assign]
    same = [replace(item, id=f"{item.id}-{turn}", image=items[0].image) for turn in range(3) for item in items[:4]]
    list(model.predict_orders([[rotated(item, order) for order in range(4)] for item in same]))
    list(model.predict(same))
    assert sum(seen) == 1


def test_a_broken_image_costs_its_item_alone(folders: Callable[[str], Path], items: list[Item], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    answers = list(load(folders("qwen2_vl")).predict([replace(items[0], image=ImageRef(str(broken))), *items[1:]]))
    assert str(broken) in str(answers[0].error)
    assert all(one.scored for one in answers[1:])


def test_a_model_that_is_shown_nothing_answers_otherwise(folders: Callable[[str], Path], items: list[Item]) -> None:
    model = load(folders("qwen2_vl"))
    blank = [replace(item, image=replace(item.image, blank=True)) for item in items[:4]]
    assert furthest(list(model.predict(items[:4])), list(model.predict(blank))) > 1e-4


def test_llava_sees_the_edges_of_a_film(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """Its processor alone would cut both ends of the longer side off."""
    plain, marked = np.full((60, 120), 90, dtype=np.uint8), np.full((60, 120), 90, dtype=np.uint8)
    marked[:, :12] = 250
    refs = []
    for name, pixels in (("plain", plain), ("marked", marked)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        refs.append(ImageRef(str(tmp_path / f"{name}.png")))
    model = load(folders("llava"))
    _ = model.loaded
    one, other = (prepared.tensors["pixel_values"] for prepared in model.eyes.prepare(refs).values())
    assert not torch.equal(one, other)
    mean = one[0, :, 0, 0]
    assert mean.abs().max() < 0.02, "the ground is the mean colour"
    inner = one[0, 0, :, 28]
    assert (inner.abs() > 0.1).float().mean() == pytest.approx(0.5, abs=0.06), "and the image keeps its shape"


def test_large_images_are_bounded(folders: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((700, 900), dtype=np.uint8)).save(path)
    model = load(folders("qwen2_vl"), max_pixels=28 * 28 * 12)
    _ = model.loaded
    (large,) = model.eyes.prepare([ImageRef(str(path))]).values()
    assert large.tokens <= 12


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_and_says_so(
    folders: Callable[[str], Path], items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(load(folders("qwen2_vl")).predict(items))
    model = load(folders("qwen2_vl"))
    _ = model.loaded
    said: list[str] = []
    model.warn = said.append
    real = model.loaded.model.forward

    def small(*args, **kwargs):
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(model.loaded.model, "forward", small)
    assert furthest(expected, list(model.predict(items))) < TOLERANCE
    assert said and "out of memory" in said[0] and "token_budget=1024" in said[0]
    budget = model.batcher.budget
    assert budget < 2048
    list(model.predict(items[:2]))
    assert model.batcher.budget == budget, "what fits does not shrink it"


def test_a_single_prompt_that_does_not_fit_is_an_error(
    folders: Callable[[str], Path], items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossmed_core.answers import answer_block

    model = load(folders("qwen2_vl"))
    real = model.loaded.model.forward
    long = max(items, key=lambda item: len(item.question))

    def small(*args, **kwargs):
        if kwargs["attention_mask"].sum(1).max() > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(model.loaded.model, "forward", small)
    some = [replace(item, question="Dark?") for item in items[1:3]] + [replace(long, question="Why? " * 400)]
    answers = answer_block(model, some)
    assert [one.scored for one in answers.values()] == [True, True, False]
    assert "out of memory" in str(answers[long.id].error)


def test_a_model_that_returns_nan_answers_nothing(
    folders: Callable[[str], Path], items: list[Item], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    sick = tmp_path / "sick"
    shutil.copytree(folders("qwen2_vl"), sick)
    weights = load_file(sick / "model.safetensors")
    weights = {name: value * float("nan") if "norm" in name else value for name, value in weights.items()}
    save_file(weights, sick / "model.safetensors", {"format": "pt"})
    answers = list(load(sick).predict(items))
    assert {one.error for one in answers} == {"the model's output is not a number (NaN)"}


@pytest.mark.parametrize(
    ("said", "failure"),
    [("I'm sorry, but I can't help with that.", "refused"), ("lorem ipsum dolor", "unparsed"), ("", "unparsed")],
)
def test_refusals_and_garbage_are_unscored(
    folders: Callable[[str], Path], items: list[Item], said: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders("qwen2_vl"), scoring="generate")
    _ = model.loaded
    monkeypatch.setattr(model.plain, "generate", lambda prompts, max_new_tokens: [said] * len(prompts))
    answers = list(model.predict(items))
    assert {(one.scored, one.failure, one.raw) for one in answers} == {(False, failure, said)}


def test_where_the_fast_way_differs_the_plain_one_is_taken(
    folders: Callable[[str], Path], items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders("llava"))
    _ = model.loaded
    said: list[str] = []
    model.warn = said.append
    look = model.eyes.look

    def wrong(images):
        seen = look(images)
        for one in seen:
            one.pooled = -one.pooled
        return seen

    monkeypatch.setattr(model.eyes, "look", wrong)
    assert furthest(list(load(folders("llava"), reuse=False).predict(items)), list(model.predict(items))) < TOLERANCE
    assert len(said) == 1 and "going on without them, slower" in said[0]


def test_grounding_models_answer_with_regions(folders: Callable[[str], Path], tmp_path: Path) -> None:
    item = mask_item(0, tmp_path)
    model = load(folders("qwen2_vl"), segmentation="box")
    _ = model.loaded
    texts = {"right": "[0, 0, 500, 500]", "wrong": "over there"}
    for which, text in texts.items():
        model.plain.generate = lambda prompts, max_new_tokens, text=text: [text] * len(prompts)  # type: ignore[method-assign]
        (answer,) = model.predict([item])
        if which == "right":
            assert answer.mask is not None and answer.mask.size == (64, 64)
            assert sum(answer.mask.counts[1::2]) == 32 * 32
        else:
            assert answer.failure == "unparsed" and "no box" in str(answer.error)


# -- before anything is loaded -----------------------------------------------------------------------------------------


def broken(folders: Callable[[str], Path], tmp_path: Path, change: Callable[[Path], None]) -> Path:
    place = tmp_path / "broken"
    shutil.copytree(folders("qwen2_vl"), place)
    change(place)
    return place


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_images(folder: Path) -> None:
    text = "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{{ c['text'] or '' }}{% endfor %}\n"
    (folder / "chat_template.jinja").write_text(text + "{% endfor %}assistant:")


def unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llava_qwen2"}))


def own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "modeling.C", "AutoModelForImageTextToText": "modeling.M"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto}))


def torn(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("config.json"), "has no config.json"),
        (remove("processor_config.json"), "no processor_config.json"),
        (remove("tokenizer.json"), "has no tokenizer"),
        (remove("model.safetensors"), "holds no \\*.safetensors"),
        (as_pickle, "pickled"),
        (remove("chat_template.jinja"), "chat template"),
        (without_images, "leaves no place for an image"),
        (unknown_architecture, "llava_qwen2"),
        (own_code, "trust_remote_code=true"),
        (torn, "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a JSON object"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    folders: Callable[[str], Path], tmp_path: Path, items: list[Item], change: Callable[[Path], None], message: str
) -> None:
    place = broken(folders, tmp_path, change)
    with pytest.raises(CrossmedError, match=message) as caught:
        list(load(place).predict(items[:1]))
    assert "\n" not in str(caught.value) and "under-test" in str(caught.value)
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


def test_a_missing_folder_and_a_missing_hub_id_say_what_to_do() -> None:
    for spec, words in (
        (ModelSpec("x", "mllm", {"name": "./nowhere"}), "there is no folder './nowhere'"),
        (ModelSpec("x", "mllm", {"name": "ORG/NAME"}), "hf download ORG/NAME --include"),
        (ModelSpec("qwen2vl", "mllm", {}, "Qwen/Q", "abc"), "hf download Qwen/Q --revision abc"),
        (ModelSpec("x", "mllm", {"name": "ORG/NA ME!"}), "is not a hub id"),
    ):
        with pytest.raises(CrossmedError) as caught:
            MllmFamily().load(spec, device="cpu")
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [("GatedRepoError", "is gated"), ("RepositoryNotFoundError", "the hub has no"),
     ("RevisionNotFoundError", "has no revision 'abc'")],
)  # fmt: skip
def test_the_hubs_refusals_are_told_apart(error: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(hub: str, *, local_files_only: bool = False, **ignored: object) -> str:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not here")
        response = SimpleNamespace(headers={}, request=None)
        raise getattr(errors, error)("no", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CrossmedError, match=words) as caught:
        MllmFamily().load(ModelSpec("medgemma", "mllm", {}, "google/medgemma", "abc"), device="cpu")
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("options", "words"),
    [({"scoring": "guess"}, "letters, generate"), ({"token_budget": -1}, "token_budget"), ({"reuse": "no"}, "true or"),
     ({"lora_rank": 0}, "lora_rank"), ({"lora_dropout": 1.5}, "lora_dropout"), ({"dtype": "int8"}, "dtype"),
     ({"max_pixels": 1.5}, "whole number"), ({"adapter": "/nowhere"}, "no LoRA adapter")],
)  # fmt: skip
def test_wrong_options_are_refused(folders: Callable[[str], Path], options: dict[str, object], words: str) -> None:
    with pytest.raises(CrossmedError, match=words):
        load(folders("qwen2_vl"), **options)


def test_a_forecast_counts_and_warns(folders: Callable[[str], Path]) -> None:
    from crossmed_core.contracts import TrainSettings

    folder = folders("qwen2_vl")
    count = sum(p.numel() for p in load(folder).loaded.model.parameters())
    found = forecast(ModelSpec("x", "mllm", {"name": str(folder)}), TrainSettings(), "cpu")
    assert found.parameters_m == pytest.approx(count / 1e6) and found.dtype == "float32" and not found.problem
    assert found.train_ms and found.answer_ms and found.train_ms > found.answer_ms
    giant = ModelSpec("x", "mllm", {"tuning": "full"}, "ORG/NAME", "", "llama2", 4_000_000, gated=True)
    found = forecast(giant, TrainSettings(), "cpu")
    assert "its weights take" in found.problem and "hf download ORG/NAME" in found.weights
    assert any("Gated" in note for note in found.notes) and any("learning_rate" in note for note in found.notes)
