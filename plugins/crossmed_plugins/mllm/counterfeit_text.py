"""The text half of a counterfeit checkpoint: a small tokenizer and the family's chat template.

Every tokenizer is a byte-level BPE trained on a few questions; only its special tokens and its chat template are the
real family's. LLaVA's and Gemma's SentencePiece vocabularies are therefore not imitated: a letter after a space is
the one token `" A"`, as it is in a real byte-level vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

LETTERS = ("A", "B", "C", "D")
"""The answers of a four-option question."""

LARGEST_VOCABULARY = 1024
"""Most entries that a tokenizer learns, the 256 bytes included, special tokens not."""

_QUESTIONS = (
    ("What abnormality is visible in the left lung?", ("nodule", "effusion", "pneumothorax", "no finding")),
    ("Which organ is shown in this image?", ("liver", "kidney", "spleen", "pancreas")),
    ("Which imaging modality was used?", ("computed tomography", "magnetic resonance", "ultrasound", "X-ray")),
    ("Which plane is this slice taken in?", ("axial", "coronal", "sagittal", "oblique")),
    ("What does the chest radiograph show?", ("cardiomegaly", "consolidation", "atelectasis", "edema")),
    ("Which lesion is seen on this skin photograph?", ("melanoma", "nevus", "keratosis", "basal cell carcinoma")),
    ("What grade is the diabetic retinopathy?", ("mild", "moderate", "severe", "proliferative")),
    ("Which tumor is most likely in this brain scan?", ("glioma", "meningioma", "pituitary adenoma", "no tumor")),
    ("Is there a fracture of the wrist?", ("yes", "no", "old fracture", "cannot be told")),
    ("Which cell type does the blood smear show?", ("neutrophil", "lymphocyte", "monocyte", "eosinophil")),
    ("What is the diagnosis of the optical coherence tomography?", ("drusen", "neovascularization", "edema", "normal")),
    ("Which tissue does the histology slide show?", ("colon", "breast", "prostate", "lung")),
)


def question_text(question: str, options: Sequence[str]) -> str:
    """Return the question followed by one lettered line per option, as users write it."""
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"Question: {question}\nOptions:\n{lines}\nPlease select the correct answer from the options above."


DEFAULT_TEXTS: tuple[str, ...] = tuple(
    f"{question_text(question, options[turn:] + options[:turn])}\nAnswer: {LETTERS[turn]}"
    for question, options in _QUESTIONS
    for turn in range(len(LETTERS))
)


@dataclass(frozen=True)
class TextFamily:
    """What the text side of one model family looks like.

    Attributes:
        special: Special tokens besides the named ones.
        template: Chat template (Jinja), rendering parts of type "image" and "text".
        ends: Tokens that end an answer, the end of a turn first.
        pad: Padding token.
        bos: First token of a sequence, or None.
        adds_bos: Whether the tokenizer puts `bos` before every text by itself.
        separator: What stands between the generation prompt and an answer letter.
        named: Special tokens that the processor asks the tokenizer for by name.
    """

    special: tuple[str, ...]
    template: str
    ends: tuple[str, ...]
    pad: str
    bos: str | None = None
    adds_bos: bool = False
    separator: str = ""
    named: dict[str, str] = field(default_factory=dict)

    def tokens(self) -> tuple[str, ...]:
        """Return every special token once, in the order of their ids."""
        bos = () if self.bos is None else (self.bos,)
        return tuple(dict.fromkeys((*bos, self.pad, *self.ends, *self.special, *self.named.values())))


def build_tokenizer(family: TextFamily, texts: Sequence[str]) -> Any:
    """Train the family's tokenizer on texts.

    The byte alphabet is always part of the vocabulary, so every text can be encoded. Answer lines with each letter
    are added to the texts, so that both `"A"` and `" A"` are one token.

    Args:
        family: The special tokens.
        texts: Training texts.

    Returns:
        A fast tokenizer: at most `LARGEST_VOCABULARY` learnt tokens, the special tokens behind them.

    Raises:
        ValueError: When a letter or a special token of the family is more than one token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    answers = [f"Answer: {letter}" for letter in LETTERS] * max(1, len(texts))
    tokenizer.train_from_iterator([*texts, *answers], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.tokens()])
    if family.adds_bos and family.bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A",
            pair=f"{family.bos} $A {family.bos} $B",
            special_tokens=[(family.bos, tokenizer.token_to_id(family.bos))],
        )
    for text in (*LETTERS, *(f" {letter}" for letter in LETTERS), *family.tokens()):
        if len(tokenizer.encode(text, add_special_tokens=False).ids) != 1:
            raise ValueError(f"{text!r} is not one token of this vocabulary")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.ends[0],
        pad_token=family.pad,
        extra_special_tokens=family.named or list(family.special),
        clean_up_tokenization_spaces=False,
    )


def chat_prompt(processor: Any, text: str) -> str:
    """Return one image and one user text in the processor's chat template, up to where the answer starts."""
    parts = [{"type": "image"}, {"type": "text", "text": text}]
    prompt: str = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    return prompt


def letter_ids(processor: Any, image: Image.Image, prompt: str, *, separator: str) -> list[int]:
    """Return the ids of A to D as they follow the prompt and the separator.

    Raises:
        ValueError: When a letter changes the tokens before it, or is not exactly one token.
    """
    start = encode_prompt(processor, image, prompt)["input_ids"][0].tolist()
    ids = []
    for letter in LETTERS:
        whole = encode_prompt(processor, image, f"{prompt}{separator}{letter}")["input_ids"][0].tolist()
        if whole[:-1] != start:
            raise ValueError(f"{separator + letter!r} is not one more token after the prompt")
        ids.append(whole[-1])
    return ids


def encode_prompt(processor: Any, image: Image.Image, prompt: str) -> Any:
    """Return the model's inputs for one prompt, the image's placeholder expanded, as tensors of batch size 1."""
    # Some templates write the first token themselves; the tokenizer would put it there once more.
    starts = processor.tokenizer.bos_token is not None and prompt.startswith(processor.tokenizer.bos_token)
    return processor(images=[image], text=[prompt], return_tensors="pt", add_special_tokens=not starts)


_PARTS = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
_CHATML = (
    "{% for message in messages %}SYSTEM<|im_start|>{{ message['role'] }}\n"
    + _PARTS
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
_LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}"
    "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    + _PARTS.replace("IMAGE", "<image>")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
    "{% set first = messages[0]['content'] %}"
    "{% set prefix = (first if first is string else first[0]['text']) + '\n\n' %}"
    "{% else %}{% set turns = messages %}{% set prefix = '' %}{% endif %}"
    "{% for message in turns %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ prefix if loop.first else '' }}"
    + _PARTS.replace("IMAGE", "<start_of_image>")
    .replace("{{ part['text'] }}", "{{ part['text'] | trim }}")
    .replace("{{ message['content'] }}", "{{ message['content'] | trim }}")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_LLAMA_SYSTEM = (
    "{% if loop.first and message['role'] == 'system' %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n\n"
    + _PARTS.replace("IMAGE", "")
    + "<|eot_id|>{% else %}"
)
_LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    + _LLAMA_SYSTEM
    + "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    + _PARTS.replace("IMAGE", "<|image|>")
    + "<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def _chatml(image: str, system: str = "") -> str:
    return _CHATML.replace("SYSTEM", system).replace("IMAGE", image)


_QWEN_SPECIAL = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_ENDS = ("<|im_end|>", "<|endoftext|>")
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN2 = TextFamily(_QWEN_SPECIAL, _chatml(_QWEN_IMAGE, _QWEN_SYSTEM), _QWEN_ENDS, "<|endoftext|>")
_SMOL = TextFamily(
    special=(
        *("<|endoftext|>", "<image>", "<fake_token_around_image>", "<global-img>"),
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    ),
    template=_SMOLVLM,
    ends=("<end_of_utterance>",),
    pad="<|im_end|>",
    bos="<|im_start|>",
    separator=" ",
)

TEXT_FAMILIES: dict[str, TextFamily] = {
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen3_vl": TextFamily(_QWEN_SPECIAL, _chatml(_QWEN_IMAGE), _QWEN_ENDS, "<|endoftext|>"),
    "llava": TextFamily(("<unk>", "<image>"), _LLAVA, ("</s>",), pad="<pad>", bos="<s>", adds_bos=True, separator=" "),
    "llava_onevision": TextFamily(
        ("<|im_start|>", "<image>", "<video>"), _chatml("<image>\n"), ("<|im_end|>",), "<|endoftext|>"
    ),
    "smolvlm": _SMOL,
    "idefics3": _SMOL,
    "internvl": TextFamily(
        special=("<|im_start|>",),
        template=_chatml("<IMG_CONTEXT>\n"),
        ends=_QWEN_ENDS,
        pad="<|endoftext|>",
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "gemma3": TextFamily(
        special=("<start_of_turn>",),
        template=_GEMMA,
        ends=("<end_of_turn>", "<eos>"),
        pad="<pad>",
        bos="<bos>",
        adds_bos=True,
        named={"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    ),
    # The image token comes last: like the real one, it may lie outside the output head.
    "mllama": TextFamily(
        special=("<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<|image|>"),
        template=_LLAMA,
        ends=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        pad="<|finetune_right_pad_id|>",
        bos="<|begin_of_text|>",
        adds_bos=True,
    ),
}
