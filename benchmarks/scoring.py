"""Chat models that see: option letters read from one pass, against generating and against log-likelihoods.

    python benchmarks/scoring.py [--rounds 3] [--no-small] [--no-bf16] [--json]
    python benchmarks/scoring.py --device cuda --geometry 7b [--items 256] [--side 448]

The first form takes about ten minutes of one core. It writes counterfeit checkpoints that answer by letter, and asks
them the same items, with images read from disk, in three ways:

    ours        `MllmModel.predict`, or `predict_orders` for the four cyclic orders of the options;
    generate    one item at a time: the model's own processor, greedy generation of at most 16 tokens, our parser;
    apart       one pass per option over prompt and letter, all logits, and the letter's log-probability. The image is
                opened once per item; only the row of logits that is read is normalised.

Unit: items per CPU second of this process, one thread of torch. The ways take turns, in another direction every round;
a ratio is the median over rounds of ours over the other's in the same round. Every item has an image of its own, and
features are forgotten before each turn, so no way profits from an earlier look. Loading is not timed, opening and
preparing images is. Random weights: ratios tell shapes and overheads, not accuracy. Ends with status 1 if a gate fails.

The second form builds the geometry of Qwen2-VL-7B with random weights on the device and says how fast our path answers
and trains there: items and samples per second, floating-point operations per second (2 x weights x real tokens and
patches, 4 x for a training step of adapters, attention's own products not counted) and their share of what a large
matrix product reaches. `--device cpu --geometry tiny` runs the same code anywhere.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import importlib.util
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2VLConfig
from transformers.utils import logging

from crossmed_core.contracts import FitContext, TrainSettings
from crossmed_core.orders import rotated
from crossmed_core.training.loop import train as train_loop
from crossmed_core.types import LETTERS, MAT, ImageRef, Item, ModelSpec
from crossmed_plugins.mllm.architectures import bound_images, facts_of
from crossmed_plugins.mllm.checkpoint import Checkpoint
from crossmed_plugins.mllm.counterfeit import Shape, solve_letter_head, write_checkpoint
from crossmed_plugins.mllm.counterfeit_text import TEXT_FAMILIES
from crossmed_plugins.mllm.finetuning import Finetuning, add_adapter
from crossmed_plugins.mllm.loading import Loaded
from crossmed_plugins.mllm.model import MllmFamily, MllmModel
from crossmed_plugins.mllm.parser import parse_option
from crossmed_plugins.mllm.settings import Settings
from crossmed_plugins.mllm.vision import open_rgb

ORDERS = 4
NEW_TOKENS = 16
HEAD_ITEMS = 48
INSTRUCTION = "Please select the correct answer from the options above."
ORGANS = (
    "liver",
    "kidney",
    "spleen",
    "pancreas",
    "bladder",
    "heart",
    "brain",
    "lung",
    "stomach",
    "thyroid",
    "prostate",
)
FINDINGS = ("nodule", "effusion", "pneumothorax", "consolidation", "cardiomegaly", "fracture", "atelectasis", "edema")
MODALITIES = ("computed tomography", "magnetic resonance", "ultrasound", "X-ray", "mammography", "dermoscopy")
ASKED = (
    ("Which organ is shown in this image?", ORGANS),
    ("Which organ does the scan show?", ORGANS),
    ("What abnormality is visible in this image?", FINDINGS),
    ("What is the most likely finding?", FINDINGS),
    ("Which imaging modality was used?", MODALITIES),
    ("How was this image acquired?", MODALITIES),
)

TINY = Shape(
    hidden=256,
    layers=4,
    heads=4,
    kv_heads=2,
    mlp=704,
    vision_width=128,
    vision_layers=4,
    vision_heads=4,
    max_pixels=1280 * 28 * 28,
)
GEOMETRIES = {
    "7b": Shape(
        hidden=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        mlp=18_944,
        vision_width=1280,
        vision_layers=32,
        vision_heads=16,
        vocabulary=152_064,
    ),
    "tiny": replace(TINY, vocabulary=2048),
}


class Tested(NamedTuple):
    """A checkpoint, and how many items each way is given.

    Attributes:
        name: As printed.
        architecture: Of `counterfeit.ARCHITECTURES`.
        shape: Sizes.
        single: Items in their own order, for ours and for generating.
        apart: The first of them, for passes per option.
        rotated: Items in four orders.
        four: Least ratio of four orders to generating.
        apart_least: Least ratio of one order to passes per option; 0 = none is demanded.
    """

    name: str
    architecture: str
    shape: Shape
    single: int
    apart: int
    rotated: int
    four: float = 2.5
    apart_least: float = 0.0


SMALL = Shape(
    hidden=768,
    layers=12,
    heads=12,
    kv_heads=2,
    mlp=2048,
    vision_width=384,
    vision_layers=12,
    vision_heads=6,
    max_pixels=1280 * 28 * 28,
)
TESTED = (
    Tested("Qwen2-VL tiny", "qwen2_vl", TINY, 192, 32, 64, four=4.0),
    Tested("Qwen2-VL tiny, 151,936 rows", "qwen2_vl", replace(TINY, vocabulary=151_936), 96, 12, 24, apart_least=20.0),
    Tested("LLaVA tiny, 256 image tokens", "llava", replace(TINY, kv_heads=4, grid=16), 64, 16, 16),
    Tested("Qwen2-VL small, 99 million", "qwen2_vl", SMALL, 40, 6, 8),
)


# -- items -----------------------------------------------------------------------------------------


def made_up(folder: Path, numbers: range, *, sides: tuple[int, int] = (64, 224)) -> list[Item]:
    """Write square greyscale images with sides in a range, and ask a four-option question about each."""
    items = []
    for number in numbers:
        rng = np.random.default_rng((number, *sides))
        side = int(rng.integers(sides[0], sides[1] + 1))
        coarse = Image.fromarray(rng.integers(0, 230, (8, 8), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.uint8)
        path = folder / f"{number:05d}-{sides[1]}.png"
        Image.fromarray(smooth // 8 * 7 + rng.integers(0, 28, smooth.shape, dtype=np.uint8)).save(path)
        question, pool = ASKED[rng.integers(len(ASKED))]
        options = tuple(str(one) for one in rng.choice(pool, ORDERS, replace=False))
        item = Item(
            id=f"{number:05d}",
            dataset="made-up",
            mat=MAT("xray", "chest", "finding"),
            patient=f"{number:05d}",
            part="test",
            image=ImageRef(str(path)),
            question=f"Question: {question}\nOptions:",
            options=options,
            answer=0,
            label=options[0],
        )
        items.append(rotated(item, int(rng.integers(ORDERS))))
    return items


def texts(items: Sequence[Item]) -> list[str]:
    """Return what a tokenizer is trained on, so that prompts have as many tokens as words, about."""
    return [f"{item.prompt}\n{INSTRUCTION}" for item in items]


def write_speaker(folder: Path, tested: Tested, items: Sequence[Item]) -> None:
    """Write a checkpoint that answers with a letter, if it is not there."""
    if (folder / "solved").exists():
        return
    write_checkpoint(folder, tested.architecture, shape=tested.shape, texts=texts(items))
    pairs = [(open_rgb(item.image), text) for item, text in zip(items, texts(items), strict=True)]
    solve_letter_head(folder, pairs)
    (folder / "solved").touch()


# -- the three ways --------------------------------------------------------------------------------


def prompt(model: MllmModel, item: Item) -> str:
    """Return an item's prompt, as ours writes it."""
    return model.prompts.prompt(model.prompts.question(item), image=True)


def generate(model: MllmModel, items: Sequence[Item]) -> list[int | None]:
    """Let the model speak, one item at a time, and read what it said."""
    found = []
    for item in items:
        (said,) = model.plain.generate([(prompt(model, item), open_rgb(item.image))], max_new_tokens=NEW_TOKENS)
        found.append(parse_option(said, item.options)[0])
    return found


def apart(model: MllmModel, items: Sequence[Item]) -> list[int | None]:
    """Take the log-probability of each option's letter from a pass of its own."""
    network, separator = model.loaded.model, TEXT_FAMILIES[model.loaded.model_type].separator
    found: list[int | None] = []
    with torch.inference_mode():
        for item in items:
            image, text = open_rgb(item.image), prompt(model, item)
            scores = []
            for letter in LETTERS[: len(item.options)]:
                inputs = model.plain.inputs([(f"{text}{separator}{letter}", image)])
                log_p = network(**inputs, use_cache=False).logits[0, -2].float().log_softmax(-1)
                scores.append(float(log_p[inputs["input_ids"][0, -1]]))
            found.append(int(np.argmax(scores)))
    return found


class Answers(NamedTuple):
    """What ours said: letters and the probability that any letter is said."""

    letters: list[int | None]
    masses: list[float]


def ours(model: MllmModel, groups: Sequence[Sequence[Item]]) -> Answers:
    """Ask as a run does, in blocks of the model's own size; a group is one item in several orders."""
    model.eyes.forget()
    letters: list[int | None] = []
    masses: list[float] = []
    for start in range(0, len(groups), model.block):
        block = groups[start : start + model.block]
        single = all(len(group) == 1 for group in block)
        found = [[one] for one in model.predict([one for (one,) in block])] if single else model.predict_orders(block)
        for answers in found:
            letters += [answer.option for answer in answers]
            masses += [answer.letter_mass or 0.0 for answer in answers]
    return Answers(letters, masses)


# -- timing ----------------------------------------------------------------------------------------


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds of the process, and the result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def measure(tested: Tested, folder: Path, items: Sequence[Item], dtype: str, rounds: int) -> dict[str, Any]:
    """Ask one checkpoint in all ways.

    Returns:
        JSON values: items per CPU second of each way, ratios, agreement; under "letters", ours of the single and the
        rotated items.
    """
    options = {"name": str(folder), "dtype": dtype, "instruction": INSTRUCTION}
    model = MllmFamily().load(ModelSpec(tested.name, "mllm", options), device="cpu")
    parameters = model.loaded.model.parameters()
    warnings: list[str] = []
    model.warn = warnings.append
    single = items[: tested.single]
    groups = [[rotated(item, order) for order in range(ORDERS)] for item in items[: tested.rotated]]
    turned = [one for group in groups for one in group]
    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "generate": (len(single), partial(generate, model, single)),
        "ours": (len(single), partial(ours, model, [[item] for item in single])),
        "apart": (tested.apart, partial(apart, model, single[: tested.apart])),
        "ours_four": (len(groups), partial(ours, model, groups)),
        "generate_four": (len(groups), partial(generate, model, turned)),
    }
    ours(model, [[item] for item in items[-4:]])
    ours(model, groups[-4:])
    generate(model, items[-2:])
    apart(model, items[-1:])
    speed: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, Any] = {}
    for turn in range(rounds):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            count, work = ways[name]
            spent, said[name] = seconds(work)
            speed[name].append(count / spent)

    def ratio(one: str, other: str) -> float:
        return statistics.median(mine / its for mine, its in zip(speed[one], speed[other], strict=True))

    single_same, single_spoken = agreement(said["generate"], said["ours"].letters)
    four_same, four_spoken = agreement(said["generate_four"], said["ours_four"].letters)
    apart_same, _ = agreement(said["apart"], said["ours"].letters[: tested.apart])
    lengths = [len(ids) for ids in model.tokens(single, model.eyes.prepare([item.image for item in single]))]
    return {
        "checkpoint": tested.name,
        "dtype": dtype,
        "millions": round(sum(one.numel() for one in parameters) / 1e6, 1),
        "tokens": round(statistics.mean(lengths), 1),
        "items": {"single": len(single), "apart": tested.apart, "four": len(groups)},
        "items_per_cpu_second": {name: round(statistics.median(values), 3) for name, values in speed.items()},
        "over_generate": round(ratio("ours", "generate"), 3),
        "over_apart": round(ratio("ours", "apart"), 3),
        "four_over_generate": round(ratio("ours_four", "generate_four"), 3),
        "parsed": round((single_spoken + four_spoken) / (len(single) + len(turned)), 4),
        "spoken": {"single": single_spoken, "four": four_spoken},
        "same": {"single": single_same, "four": four_same},
        "same_apart": apart_same,
        "mass": round(statistics.median(said["ours"].masses + said["ours_four"].masses), 4),
        "distinct": len(set(said["ours"].letters)),
        "warnings": warnings,
        "letters": {"single": said["ours"].letters, "four": said["ours_four"].letters},
    }


def agreement(said: Sequence[int | None], found: Sequence[int | None]) -> tuple[int, int]:
    """Return on how many items both agree, and on how many the first gave a letter."""
    spoken = [(one, other) for one, other in zip(said, found, strict=True) if one is not None]
    return sum(one == other for one, other in spoken), len(spoken)


class Gate(NamedTuple):
    """What is demanded, what was measured."""

    what: str
    value: float
    least: float

    @property
    def holds(self) -> bool:
        """Whether it is met."""
        return self.value >= self.least


def gates(results: Sequence[dict[str, Any]]) -> list[Gate]:
    """Return the gates of float32 results."""
    found = []
    for tested in TESTED:
        for one in results:
            if one["checkpoint"] != tested.name or one["dtype"] != "float32":
                continue
            spoken, same = sum(one["spoken"].values()), sum(one["same"].values())
            found += [
                Gate(f"{tested.name}: four orders over generate", one["four_over_generate"], tested.four),
                Gate(f"{tested.name}: one order over generate", one["over_generate"], 1.0),
                Gate(f"{tested.name}: letters equal, of {spoken} said", same / spoken if spoken else 0.0, 1.0),
            ]
            if tested.apart_least:
                found.append(
                    Gate(f"{tested.name}: one order over passes per option", one["over_apart"], tested.apart_least)
                )
    return found


def row(one: dict[str, Any]) -> str:
    """Return a line of the table."""
    speed = one["items_per_cpu_second"]
    return (
        f"{one['checkpoint']:29}{one['dtype']:9}{speed['generate']:9.2f}{speed['apart']:8.2f}{speed['ours']:8.2f}"
        f"{one['over_generate']:9.2f}{one['over_apart']:7.1f}{speed['generate_four']:10.2f}{speed['ours_four']:8.2f}"
        f"{one['four_over_generate']:9.2f}{100 * one['parsed']:8.1f}{one['mass']:6.2f}"
    )


HEADER = (
    f"{'':38}{'items per CPU second':>25}{'ours over':>16}{'in four orders':>18}{'ours/':>9}{'parsed':>8}{'':>6}\n"
    f"{'checkpoint':29}{'dtype':9}{'generate':>9}{'apart':>8}{'ours':>8}{'generate':>9}{'apart':>7}{'generate':>10}"
    f"{'ours':>8}{'generate':>9}{'%':>8}{'mass':>6}"
)


def compare(arguments: argparse.Namespace, root: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], bool]:
    """Measure all checkpoints, print, and judge."""
    torch.set_num_threads(1)
    images = root / "images"
    images.mkdir(parents=True, exist_ok=True)
    tested = [one for one in TESTED if arguments.small or one.shape != SMALL]
    items = made_up(images, range(max(one.single for one in tested)))
    practice = made_up(images, range(10_000, 10_000 + HEAD_ITEMS))
    fast = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    dtypes = ["float32", *(["bfloat16"] if fast and arguments.bf16 else [])]
    results: list[dict[str, Any]] = []
    say(HEADER)
    for one in tested:
        folder = root / one.name.replace(" ", "-").replace(",", "")
        write_speaker(folder, one, practice)
        exact: dict[str, list[int | None]] = {}
        for dtype in dtypes:
            found = measure(one, folder, items, dtype, arguments.rounds)
            letters = found.pop("letters")
            if exact:
                for kind, values in letters.items():
                    found[f"same_as_float32_{kind}"] = list(agreement(exact[kind], values))
            exact = exact or letters
            results.append(found)
            say(row(found))
            for message in found["warnings"]:
                say(f"  {message}")
    say(
        "\nletters equal to generate's (one order, four orders), and to those of passes per option, with the same dtype"
    )
    for found in results:
        pairs = [f"{found['same'][kind]}/{found['spoken'][kind]}" for kind in ("single", "four")]
        line = f"  {found['checkpoint']:29}{found['dtype']:9} {pairs[0]:>9} {pairs[1]:>9}"
        line += f" {found['same_apart']:>4}/{found['items']['apart']}"
        if "same_as_float32_single" in found:
            of = ["/".join(map(str, found[f"same_as_float32_{kind}"])) for kind in ("single", "four")]
            line += f"   ours equal to ours in float32: {of[0]}, {of[1]}"
        say(line)
    judged = gates(results)
    say("")
    for gate in judged:
        say(f"{'ok  ' if gate.holds else 'FAIL'} {gate.what}: {gate.value:.2f} (at least {gate.least:g})")
    held = all(gate.holds for gate in judged)
    facts = {
        "torch": torch.__version__,
        "cpu": torch.cpu.get_capabilities().get("cpu_name"),
        "rounds": arguments.rounds,
    }
    verdicts = [{"gate": gate.what, "value": gate.value, "least": gate.least, "holds": gate.holds} for gate in judged]
    return {**facts, "results": results, "gates": verdicts}, held


# -- a geometry with random weights on a device ----------------------------------------------------


def build(geometry: Shape, folder: Path, settings: Settings, device: str) -> MllmModel:
    """Make a Qwen2-VL of a geometry on the device; only its tokenizer and processor are written to disk."""
    folder.mkdir()
    write_checkpoint(
        folder, "qwen2_vl", shape=Shape(max_pixels=geometry.max_pixels), texts=texts(made_up(folder, range(48)))
    )
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in zip(keys, names, strict=True)}
    half = geometry.hidden // geometry.heads // 2
    time_part, height = half // 4, (half - half // 4) // 2
    config = Qwen2VLConfig(
        text_config={
            "hidden_size": geometry.hidden,
            "intermediate_size": geometry.mlp,
            "num_hidden_layers": geometry.layers,
            "num_attention_heads": geometry.heads,
            "num_key_value_heads": geometry.kv_heads,
            "vocab_size": geometry.vocabulary,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [time_part, height, half - time_part - height],
            },
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": geometry.vision_layers,
            "embed_dim": geometry.vision_width,
            "num_heads": geometry.vision_heads,
            "hidden_size": geometry.hidden,
        },
        tie_word_embeddings=False,
        **ids,
    )
    flash = device == "cuda" and importlib.util.find_spec("flash_attn") is not None
    attention = settings.attention or ("flash_attention_2" if flash else "sdpa")
    with torch.device(device):
        network = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, settings.precision(device)), attn_implementation=attention
        ).eval()
    facts = facts_of("qwen2_vl")
    bound_images(processor.image_processor, config, facts, settings.max_pixels)
    model = MllmModel(ModelSpec("random", "mllm"), settings, device=device)
    model.take(Loaded(network, processor, facts, "qwen2_vl", Checkpoint(folder), attention))
    return model


class Counter:
    """Counts what goes through a model: tokens that are no padding, all tokens, patches, rows that meet the vocabulary.

    Args:
        network: A Qwen2-VL; weights are counted now.
    """

    def __init__(self, network: Any) -> None:
        inner, tower = network.model, network.model.visual
        count = {
            name: sum(one.numel() for one in part.parameters())
            for name, part in (
                ("text", inner.language_model),
                ("embedding", network.get_input_embeddings()),
                ("vision", tower),
                ("merger", tower.merger),
                ("head", network.lm_head),
            )
        }
        self.weights = {
            "tokens": count["text"] - count["embedding"],
            "patches": count["vision"] - count["merger"],
            "image_tokens": count["merger"],
            "answers": count["head"],
        }
        self.all = sum(one.numel() for one in network.parameters())
        self.merged = tower.spatial_merge_size**2
        self.reset()
        inner.register_forward_pre_hook(self._text, with_kwargs=True)
        tower.register_forward_pre_hook(self._vision, with_kwargs=True)
        network.lm_head.register_forward_pre_hook(self._head)

    def reset(self) -> None:
        """Begin anew."""
        self.tokens: Any = 0
        self.padded = self.patches = self.answers = 0

    def _text(self, _module: Any, _positional: Any, given: dict[str, Any]) -> None:
        ids, mask = given["input_ids"], given["attention_mask"]
        # Not made a number here: that would make the device wait.
        self.tokens = self.tokens + mask[:, -ids.shape[1] :].sum()
        self.padded += ids.numel()

    def _vision(self, _module: Any, positional: Any, given: dict[str, Any]) -> None:
        pixels = positional[0] if positional else given.get("hidden_states", given.get("pixel_values"))
        self.patches += pixels.shape[0]

    def _head(self, _module: Any, positional: Any) -> None:
        self.answers += positional[0].shape[:-1].numel()

    def operations(self, per_weight: int) -> float:
        """Return floating-point operations so far."""
        amounts = {
            "tokens": int(self.tokens),
            "patches": self.patches,
            "image_tokens": self.patches // self.merged,
            "answers": self.answers,
        }
        return float(per_weight * sum(self.weights[name] * amount for name, amount in amounts.items()))


class Stage:
    """Time and peak memory on one device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def now(self) -> float:
        """Return seconds once the device is idle; of the CPU's own clock where that is the device."""
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self) -> float:
        """Forget the peak; return now."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return self.now()

    def peak(self) -> float:
        """Return the peak in GiB; on a CPU that of the whole process."""
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matrix_rate(device: str, dtype: torch.dtype, stage: Stage) -> float:
    """Return operations per second of a large matrix product."""
    side, times = (8192, 20) if device == "cuda" else (1024, 5)
    one = torch.randn(side, side, device=device).to(dtype)
    for _ in range(3):
        one @ one
    started = stage.now()
    for _ in range(times):
        one @ one
    return 2 * side**3 * times / (stage.now() - started)


def scale(arguments: argparse.Namespace, root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Answer and train with a geometry on a device; print and return what was reached."""
    device, geometry = arguments.device, GEOMETRIES[arguments.geometry]
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    torch.manual_seed(0)
    settings = Settings(instruction=INSTRUCTION, dtype=arguments.dtype, attention=arguments.attention, lora_rank=16)
    stage = Stage(device)
    dtype = getattr(torch, settings.precision(device))
    peak_rate = matrix_rate(device, dtype, stage)
    model = build(geometry, root / "processor", settings, device)
    model.warn = say
    counter = Counter(model.loaded.model)
    items = made_up(root, range(arguments.items), sides=(arguments.side, arguments.side))
    name = torch.cuda.get_device_name() if device == "cuda" else str(torch.cpu.get_capabilities().get("cpu_name"))
    facts = {
        "device": name,
        "geometry": arguments.geometry,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": model.loaded.attention,
        "token_budget": model.batcher.budget,
        "matrix_tflops": round(peak_rate / 1e12, 3),
        "billions": round(counter.all / 1e9, 3),
        "billions_run_per": {what: round(weights / 1e9, 3) for what, weights in counter.weights.items()},
    }
    say("  ".join(f"{key} {value}" for key, value in facts.items() if key != "billions_run_per"))
    ours(model, [[item] for item in made_up(root, range(20_000, 20_008), sides=(arguments.side, arguments.side))])

    started = stage.now()
    model.eyes.prepare([item.image for item in items])
    preparing = stage.now() - started
    say(f"preparing images alone: {len(items) / preparing:.1f} images/s")
    rows: list[dict[str, Any]] = []
    for orders in (1, ORDERS):
        groups = [[rotated(item, order) for order in range(orders)] for item in items]
        ours(model, groups[: 2 * len(groups) // model.block or len(groups)][: model.block])
        counter.reset()
        started = stage.begin()
        ours(model, groups)
        spent = stage.now() - started
        done = counter.operations(2)
        rows.append(
            {
                "what": f"answer, {orders} order{'s' if orders > 1 else ''}",
                "per_second": len(items) / spent,
                "tokens_per_item": int(counter.tokens) / len(items),
                "padding": 1 - int(counter.tokens) / counter.padded,
                "tflops": done / spent / 1e12,
                "share": done / spent / peak_rate,
                "share_without_preparing": done / (spent - preparing) / peak_rate if spent > preparing else None,
                "peak_gib": stage.peak(),
            }
        )
        say(scale_row(rows[-1]))
    model.eyes.forget()
    add_adapter(model)
    for checkpointing in (False, True):
        rows.append(train_steps(model, counter, stage, peak_rate, items, arguments, checkpointing=checkpointing))
        say(scale_row(rows[-1]))
    return {**facts, "images_prepared_per_second": len(items) / preparing, "rows": rows}


def train_steps(
    model: MllmModel,
    counter: Counter,
    stage: Stage,
    peak_rate: float,
    items: Sequence[Item],
    arguments: argparse.Namespace,
    *,
    checkpointing: bool,
) -> dict[str, Any]:
    """Train adapters in our loop; the vision tower looks at the images before the first step, which is not timed."""
    network = model.loaded.model
    if checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})
        network.enable_input_require_grads()
    warm, total = 3, 3 + arguments.steps
    moments: dict[int, float] = {}

    def log(step: int, _total: int, **_values: float) -> None:
        if step == warm:
            counter.reset()
            moments[step] = stage.begin()
        elif step == total:
            moments[step] = stage.now()

    settings = TrainSettings(steps=total, batch_size=arguments.batch, learning_rate=1e-4, augment=False)
    what = f"train LoRA r={model.settings.lora_rank}{', checkpointing' if checkpointing else ''}"
    try:
        train_loop(Finetuning(model), items, [], FitContext(device=model.device, settings=settings, log=log))
    except torch.OutOfMemoryError:
        return {"what": what, "error": "out of memory"}
    spent = moments[total] - moments[warm]
    done = counter.operations(4)
    samples = arguments.steps * arguments.batch
    return {
        "what": what,
        "per_second": samples / spent,
        "tokens_per_item": int(counter.tokens) / samples,
        "padding": 1 - int(counter.tokens) / counter.padded,
        "tflops": done / spent / 1e12,
        "share": done / spent / peak_rate,
        "peak_gib": stage.peak(),
    }


def scale_row(one: dict[str, Any]) -> str:
    """Return a line of the table."""
    if "error" in one:
        return f"{one['what']:32}{one['error']}"
    alone = one.get("share_without_preparing")
    return (
        f"{one['what']:32}{one['per_second']:9.2f} items/s{one['tokens_per_item']:8.0f} tokens"
        f"{100 * one['padding']:6.1f} % padding{one['tflops']:10.3f} TFLOP/s{100 * one['share']:6.1f} % of the rate"
        f"{one['peak_gib']:8.2f} GiB" + (f"   ({100 * alone:.1f} % without preparing images)" if alone else "")
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--no-small", dest="small", action="store_false", help="leave out the 99-million one")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false", help="float32 alone")
    parser.add_argument("--folder", type=Path, help="where checkpoints are kept for the next run")
    parser.add_argument("--json", action="store_true", help="print one JSON object; the table goes to stderr")
    parser.add_argument("--geometry", choices=GEOMETRIES, help="answer and train with these sizes instead")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the geometry")
    parser.add_argument("--dtype", choices=("", "float32", "bfloat16"), default="", help="of the geometry")
    parser.add_argument("--attention", choices=("", "sdpa", "flash_attention_2", "eager"), default="")
    parser.add_argument("--items", type=int, default=256, help="items answered with the geometry")
    parser.add_argument("--side", type=int, default=448, help="sides of their images")
    parser.add_argument("--batch", type=int, default=8, help="items per training step")
    parser.add_argument("--steps", type=int, default=10, help="training steps timed")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not arguments.geometry:
        parser.error("--device cuda needs --geometry")
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    def say(line: str) -> None:
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        if arguments.geometry:
            found, held = scale(arguments, root, say), True
        else:
            found, held = compare(arguments, root, say)
    if arguments.json:
        print(json.dumps(found, indent=1))
    sys.exit(not held)


if __name__ == "__main__":
    main()
