"""Fine-tuning of chat models: what is trained, what the loss is, and the same adapter after a kill."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from crossmed_core.adapters import find_adapter
from crossmed_core.contracts import FitContext, TrainSettings
from crossmed_core.errors import CrossmedError
from crossmed_core.images import encode_mask
from crossmed_core.testing.items import mask_item, option_item
from crossmed_core.types import ImageRef, Item, MaskRef, ModelSpec
from crossmed_plugins.mllm.counterfeit import write_checkpoint
from crossmed_plugins.mllm.feature_store import FeatureStore
from crossmed_plugins.mllm.finetuning import Finetuning, add_adapter
from crossmed_plugins.mllm.model import MllmFamily, MllmModel
from crossmed_plugins.mllm.training_batches import WINDOW, Example, TokenBatches
from crossmed_plugins.mllm.vision import Prepared

FAST = TrainSettings(
    steps=24, batch_size=8, learning_rate=3e-3, weight_decay=0.0, label_smoothing=0.0, augment=False, warmup=0.1,
    checkpoint_seconds=0.0,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory, "qwen2_vl")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory, "llava")


def checkpoint(factory: pytest.TempPathFactory, architecture: str) -> Path:
    place = factory.mktemp(architecture)
    write_checkpoint(place, architecture)
    return place


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("train")
    return [option_item(number, folder) for number in range(24)]


def load(folder: Path, **options: object) -> MllmModel:
    spec = ModelSpec("under-test", "mllm", {"name": str(folder), **options})
    return MllmFamily().load(spec, device="cpu")


def fitted(folder: Path, train: list[Item], place: Path | None = None, **options: object) -> tuple[MllmModel, list]:
    model, losses = load(folder, **options), []
    log = lambda step, total, **values: losses.append(values)  # noqa: E731
    model.fit(train, train[:8], FitContext(settings=FAST, folder=place, log=log))
    return model, [values for values in losses if values]


# -- what is trained ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["qwen2_vl", "llava"])
@pytest.mark.parametrize(
    "options", [{"tuning": "lora"}, {"tuning": "full"}, {"tuning": "full", "vision": "trained"}], ids=str
)
def test_training_lowers_the_loss_of_what_it_trains(
    architecture: str, options: dict[str, str], request: pytest.FixtureRequest, train: list[Item]
) -> None:
    folder = request.getfixturevalue("folder" if architecture == "qwen2_vl" else "llava")
    untrained = load(folder)
    before = {name: value.clone() for name, value in untrained.loaded.model.state_dict().items()}
    trainer = Finetuning(untrained)
    context = FitContext(settings=FAST)
    batches = trainer.held_out_batches(train[:8], context)
    with torch.no_grad():
        first = float(trainer.loss(untrained.loaded.model, batches[0], smoothing=0.0))
    model, logged = fitted(folder, train, **options)
    assert logged[-1]["val_loss"] < first - 0.3, "the loss of items that were trained on falls"
    after = {name.replace(".base_layer", ""): value for name, value in model.loaded.model.state_dict().items()}
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    seeing = {name for name in before if name.startswith(model.loaded.architecture.vision)}
    if options["tuning"] == "lora":
        assert changed == set(), "adapters leave the weights alone"
        assert any("lora_A" in name for name in after) and not any("lora" in name for name in after if "visual" in name)
    elif options.get("vision") == "trained":
        assert changed & seeing and changed - seeing
    else:
        assert changed and not changed & seeing


def test_the_loss_is_that_of_transformers(folder: Path, train: list[Item]) -> None:
    """Against the model's own loss with labels on the answer alone, inputs made by its own processor."""
    model = load(folder)
    trainer = Finetuning(model)
    (batch,) = trainer.held_out_batches(train[:3], FitContext(settings=FAST))
    ours = trainer.loss(model.loaded.model, batch, smoothing=0.0)
    total, count = 0.0, 0
    for item in train[:3]:
        prompt = model.prompts.prompt(model.prompts.question(item), image=True)
        answer = f"{'ABCD'[item.answer]}<|im_end|>"
        image = Image.open(item.image.path).convert("RGB")
        start = model.plain.inputs([(prompt, image)])["input_ids"].shape[1]
        inputs = model.plain.inputs([(prompt + answer, image)])
        labels = inputs["input_ids"].clone()
        labels[:, :start] = -100
        assert labels.shape[1] - start == 2, "a letter and the end of the turn"
        with torch.no_grad():
            total += float(model.loaded.model(**inputs, labels=labels).loss) * 2
        count += 2
    assert float(ours) == pytest.approx(total / count, rel=1e-4)


def test_kept_features_give_the_same_loss_and_gradients(llava: Path, train: list[Item], tmp_path: Path) -> None:
    losses, gradients = [], []
    for where in ("pixels", "memory", "disk"):
        model = load(llava)
        _ = model.loaded
        torch.manual_seed(0)
        add_adapter(model)
        for name, parameter in model.loaded.model.named_parameters():
            if "lora_B" in name:  # zero at first, which would leave lora_A without a gradient
                torch.nn.init.normal_(parameter, std=0.05)
        trainer = Finetuning(model)
        if where != "pixels":
            trainer.store = FeatureStore(tmp_path / "features" if where == "disk" else None)
        (batch,) = trainer.held_out_batches(train[:8], FitContext(settings=FAST))
        assert (batch.features is not None) is (where != "pixels")
        model.loaded.model.eval()
        loss = trainer.loss(model.loaded.model, batch, smoothing=0.0)
        loss.backward()
        losses.append(float(loss))
        gradients.append([p.grad for p in model.loaded.model.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and losses[1] == losses[2]
    for one, other in zip(gradients[0], gradients[2], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_each_image_is_looked_at_once_while_the_tower_is_frozen(llava: Path, train: list[Item], tmp_path: Path) -> None:
    model = load(llava)
    seen: Counter[int] = Counter()
    take = model.take

    def counted(loaded) -> None:
        take(loaded)
        look = model.eyes.look
        model.eyes.look = lambda images: (seen.update([len(images)]), look(images))[1]

    model.take = counted  # type: ignore[method-assign]
    same = [replace(item, id=f"{item.id}-{turn}", image=train[turn % 3].image) for turn, item in enumerate(train)]
    model.fit(same, [], FitContext(settings=replace(FAST, steps=12), folder=tmp_path))
    assert seen == {1: 3}
    assert (tmp_path / "features-0").is_dir()


def test_augmentation_looks_again(llava: Path, train: list[Item], tmp_path: Path) -> None:
    model = load(llava)
    context = FitContext(settings=replace(FAST, steps=2, augment=True, max_shift=2), folder=tmp_path)
    model.fit(train, [], context)
    assert not (tmp_path / "features-0").exists()


@pytest.mark.parametrize("options", [{"tuning": "lora"}, {"tuning": "full", "vision": "trained"}], ids=str)
def test_computing_activations_again_changes_nothing(folder: Path, train: list[Item], options: dict[str, str]) -> None:
    few = FitContext(settings=replace(FAST, steps=3))
    weights = []
    for checkpointing in (False, True):
        model = load(folder, checkpointing=checkpointing, **options)
        model.fit(train, [], few)
        weights.append(model.loaded.model.state_dict())
        list(model.predict(train[:2]))
    assert all(torch.allclose(value, weights[1][name], atol=1e-6) for name, value in weights[0].items())


# -- killed and resumed ------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.parametrize("options", [{"tuning": "lora"}, {"tuning": "full", "vision": "trained"}], ids=str)
def test_a_killed_training_ends_in_the_same_weights(
    folder: Path, train: list[Item], tmp_path: Path, options: dict[str, str]
) -> None:
    def run(place: Path, kill_at: tuple[int, ...]) -> bytes:
        place.mkdir()
        for stop in (*kill_at, None):

            def log(step: int, total: int, stop: int | None = stop, **values: float) -> None:
                if step == stop:
                    raise KilledError

            model = load(folder, **options)
            try:
                model.fit(train, train[:4], FitContext(settings=FAST, folder=place, log=log))
            except KilledError:
                continue
        weights = place / "weights"
        weights.mkdir()
        model.save(weights)
        (file,) = weights.glob("*.safetensors")
        return file.read_bytes()

    assert run(tmp_path / "straight", ()) == run(tmp_path / "killed", (5, 17))
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    if options["tuning"] == "lora":
        assert checkpoint.stat().st_size < 3 * (folder / "model.safetensors").stat().st_size, "frozen weights left out"


# -- several processes -------------------------------------------------------------------------------------------------


def test_two_processes_train_as_one_with_twice_the_batch(folder: Path, train: list[Item], tmp_path: Path) -> None:
    """Two processes of 4 items a step see the items of one process with 8, and reach the same weights."""
    settings = replace(FAST, steps=6, batch_size=4, learning_rate=1e-3)
    said: list[int] = []
    place = tmp_path / "two"
    place.mkdir()
    pair = load(folder, tuning="full", vision="trained", processes=2)
    pair.fit(
        train, train[:4], FitContext(settings=settings, folder=place, log=lambda step, *_, **__: said.append(step))
    )
    assert said == [1, 2, 3, 4, 5, 6]
    halves = load(folder, tuning="full", vision="trained")
    accumulated = replace(settings, accumulate=2)
    halves.fit(train, train[:4], FitContext(settings=accumulated))
    one, other = pair.loaded.model.state_dict(), halves.loaded.model.state_dict()
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 2e-4
    answers = zip(pair.predict(train), halves.predict(train), strict=True)
    assert all(a.option_scores == pytest.approx(b.option_scores, abs=2e-3) for a, b in answers)


def test_processes_that_fail_say_why(folder: Path, train: list[Item], tmp_path: Path) -> None:
    lost = [replace(item, image=ImageRef(str(tmp_path / "gone.png"))) for item in train]
    place = tmp_path / "checkpoint"
    place.mkdir()
    with pytest.raises(CrossmedError, match=r"several processes failed: .*None of the 24 training images") as caught:
        load(folder, processes=2).fit(lost, [], FitContext(settings=FAST, folder=place))
    assert "training-processes.log" in str(caught.value) and (tmp_path / "training-processes.log").exists()


# -- kept and loaded again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"tuning": "lora"}, {"tuning": "full"}], ids=str)
def test_a_restored_model_answers_alike(
    folder: Path, train: list[Item], tmp_path: Path, options: dict[str, str]
) -> None:
    model, _ = fitted(folder, train, **options)
    answers = list(model.predict(train))
    model.save(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    again = load(folder, **options)
    again.restore(tmp_path)
    assert list(again.predict(train)) == answers
    if options["tuning"] == "full":
        as_checkpoint = load(tmp_path)
        assert list(as_checkpoint.predict(train)) == answers, "the folder is a checkpoint of its own"
    else:
        other = load(folder, adapter=str(tmp_path))
        assert list(other.predict(train)) == answers, "the adapter serves another run"
        other.fit(train, [], FitContext(settings=replace(FAST, steps=2)))
        assert list(other.predict(train)) != answers, "and can be trained on"


def test_an_adapter_of_another_model_is_refused(folder: Path, llava: Path, train: list[Item], tmp_path: Path) -> None:
    """peft alone warns of missing keys and goes on with untrained layers."""
    model = load(folder)
    _ = model.loaded
    add_adapter(model)
    model.save(tmp_path)
    with pytest.raises(CrossmedError, match="adapter in"):
        list(load(llava, adapter=str(tmp_path)).predict(train[:1]))
    weights = load_file(tmp_path / "adapter_model.safetensors")
    from safetensors.torch import save_file

    save_file(
        {name: value for name, value in weights.items() if "layers.0" in name}, tmp_path / "adapter_model.safetensors"
    )
    with pytest.raises(CrossmedError, match="some of its layers are not in it"):
        list(load(folder, adapter=str(tmp_path)).predict(train[:1]))


def test_the_adapter_of_a_run_is_found(tmp_path: Path) -> None:
    def adapter(trial: str) -> Path:
        place = tmp_path / "run" / "trials" / trial / "model"
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text("{}")
        return place

    with pytest.raises(CrossmedError, match="holds no adapter"):
        find_adapter(tmp_path)
    first = adapter("one")
    assert find_adapter(tmp_path / "run") == find_adapter(first) == find_adapter(first.parent) == first
    adapter("two")
    with pytest.raises(CrossmedError, match=r"2 adapters \(one, two\).*Name one: --adapter"):
        find_adapter(tmp_path / "run")


# -- items -------------------------------------------------------------------------------------------------------------


def test_broken_images_and_empty_regions_are_left_out_with_a_warning(
    folder: Path, train: list[Item], tmp_path: Path
) -> None:
    said: list[str] = []
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = replace(train[0], id="broken", image=ImageRef(str(tmp_path / "broken.png")))
    empty = replace(mask_item(0, tmp_path), id="empty", mask=MaskRef(rle=encode_mask(np.zeros((64, 64), dtype=bool))))
    model = load(folder, segmentation="box")
    context = FitContext(settings=replace(FAST, steps=1), warn=said.append)
    model.fit([broken, empty, mask_item(1, tmp_path), *train[:4]], [], context)
    assert len(said) == 2 and "broken left out" in said[0] and "no region to put a box around" in said[1]


def test_a_region_is_learnt_as_its_box(folder: Path, tmp_path: Path) -> None:
    model = load(folder, segmentation="box")
    trainer = Finetuning(model)
    (batch,) = trainer.held_out_batches([mask_item(3, tmp_path)], FitContext(settings=FAST))
    said = model.loaded.processor.tokenizer.decode(batch.labels[0])
    assert said.startswith("[") and said.endswith("]<|im_end|>") and said.count(",") == 3


def test_architectures_that_are_not_trained_say_so(tmp_path: Path, train: list[Item]) -> None:
    write_checkpoint(tmp_path, "mllama")
    with pytest.raises(CrossmedError, match="fine-tuning is not supported for its architecture 'mllama'"):
        load(tmp_path).fit(train, [], FitContext(settings=FAST))


# -- batches -----------------------------------------------------------------------------------------------------------


def batches_of(lengths: list[int], **how: int) -> TokenBatches:
    image = Prepared({"pixel_values": torch.zeros(1)}, "", 0, (1, 1))
    examples = [
        Example(Item(f"i{number}", "d", None, "p", "train", ImageRef("x"), "q"), [7] * length, [1, 2], image)
        for number, length in enumerate(lengths)
    ]
    return TokenBatches(examples, None, None, pad=0, **how)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=40), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_every_item_is_seen_once_per_epoch_whoever_makes_the_batches(
    lengths: list[int], size: int, world: int, seed: int
) -> None:
    n = len(lengths)
    windows = -(-n // (WINDOW * size)) + 1
    whole = batches_of(lengths, batch_size=size, seed=seed)
    expected = [whole[number].items for number in range(windows * WINDOW)]
    ranks = [batches_of(lengths, batch_size=size, seed=seed, rank=rank, world=world) for rank in range(world)]
    for number in reversed(range(len(expected))):
        made = ranks[number % world][number // world]
        assert [item.id for item in made.items] == [item.id for item in expected[number]]
    counts = Counter(item.id for items in expected for item in items)
    assert max(counts.values()) - min(counts.get(f"i{k}", 0) for k in range(n)) <= 2
    assert sum(counts.values()) == windows * WINDOW * size


def test_batches_hold_items_of_like_length() -> None:
    lengths = [int(one) for one in np.random.default_rng(0).integers(1, 400, 512)]
    batches = batches_of(lengths, batch_size=8)
    made = [batches[number] for number in range(64)]
    padding = np.mean([float((one.mask == 0).float().mean()) for one in made])
    naive = np.mean([1 - np.mean(part) / max(part) for part in np.array(lengths).reshape(-1, 8)])
    assert padding < 0.1 < naive / 4
    first = made[0]
    assert first.ids.shape == first.mask.shape and (first.ids[:, -2:] == torch.tensor([1, 2])).all()
    assert (first.ids[first.mask == 0] == 0).all() and (first.labels == torch.tensor([1, 2])).all()


def test_feature_files_that_are_damaged_are_said(llava: Path, train: list[Item], tmp_path: Path) -> None:
    model = load(llava)
    _ = model.loaded
    store = FeatureStore(tmp_path / "features")
    (image,) = model.eyes.prepare([train[0].image]).values()
    store.add(train[0].image, image, model.eyes)
    store.flush(model.eyes)
    shutil.copy(train[0].image.path, tmp_path / "features" / "features-00000.safetensors")
    with pytest.raises(CrossmedError, match="features-00000"):
        store.get(train[0].image)
