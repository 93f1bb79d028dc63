"""From an item to the tokens of a prompt, in the model's own chat template, and the tokens of its option letters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from crossmed_core.errors import CrossmedError, ExitCode
from crossmed_core.types import LETTERS, Item

LEAST_LETTERS = 4
"""Letters that a spelling must have."""

_MARKER = "crossmed-question-goes-here"
# Llama-3.2's template writes today's date where it writes a system message.
_DATE = "26 Jul 2024"


class Prompts:
    """Writes prompts for one processor.

    The chat template is rendered once around a marker; questions are put in its place.

    Args:
        processor: With its tokenizer, padding left.
        instruction: Sentence after the options; "" for none.
        system: System message; None = as the template does by itself.
        name: The model, for errors.

    Raises:
        CrossmedError: If there is no chat template, or none that takes an image.
    """

    def __init__(self, processor: Any, *, instruction: str, system: str | None, name: str) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.instruction = instruction
        self.system = system
        self.name = name
        self.image_token = str(getattr(processor, "image_token", ""))
        self._with_image = self._halves(image=True)
        self._without_image = self._halves(image=False)
        # Text of an item must never be read as a control token, least of all as an image.
        tokens = {str(one) for one in self.tokenizer.added_tokens_decoder.values() if len(str(one)) > 1}
        self._answers: dict[str, list[int]] = {}
        self._control = sorted(token for token in {*tokens, self.image_token} if token)

    def _rendered(self, content: list[dict[str, str]], answer: str | None = None) -> str:
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": [{"type": "text", "text": self.system}]})
        messages.append({"role": "user", "content": content})
        if answer is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        template = self.processor.chat_template
        dated = {"date_string": _DATE} if isinstance(template, str) and "date_string" in template else {}
        rendered = self.processor.apply_chat_template(
            messages, add_generation_prompt=answer is None, tokenize=False, **dated
        )
        return str(rendered)

    def _halves(self, *, image: bool) -> tuple[str, str]:
        content = [{"type": "text", "text": _MARKER}]
        if image:
            content.insert(0, {"type": "image"})
        try:
            text = self._rendered(content)
        except Exception as error:  # jinja's errors, and ValueError where there is no template
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CrossmedError(
                f"Model {self.name!r}: its chat template cannot be used ({reason}).",
                hint="It needs a chat_template.jinja, as instruction-tuned models have.",
                exit_code=ExitCode.ENVIRONMENT,
            ) from error
        wanted = int(image)
        if text.count(_MARKER) != 1 or (self.image_token and text.count(self.image_token) != wanted):
            what = "leaves no place for an image" if image else "writes an image where there is none"
            raise CrossmedError(
                f"Model {self.name!r}: its chat template {what}.",
                hint="Take a model whose template supports images.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        before, after = text.split(_MARKER)
        return before, after

    def question(self, item: Item, instruction: str | None = None) -> str:
        """Return what the user says: question, lettered options, instruction."""
        parts = [item.prompt.strip(), self.instruction if instruction is None else instruction]
        text = "\n".join(part for part in parts if part)
        for token in self._control:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def prompt(self, question: str, *, image: bool) -> str:
        """Return the whole prompt, with the image's placeholder unexpanded."""
        before, after = self._with_image if image else self._without_image
        return f"{before}{question}{after}"

    @property
    def template(self) -> str:
        """The rendered template with a placeholder for question and options, for the record."""
        return self.prompt("{question}", image=True)

    def expanded(self, prompt: str, placeholder: str) -> str:
        """Put an image's placeholder tokens, as `replace_image_token` writes them, in the image's place."""
        return prompt.replace(self.image_token, placeholder, 1)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize prompts, without a second beginning-of-sequence token where the template has one."""
        if not texts:
            return []
        bos = self.tokenizer.bos_token
        special = not (bos is not None and texts[0].startswith(bos))
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=special)["input_ids"]
        return ids

    @cached_property
    def letters(self) -> tuple[tuple[int, ...], ...]:
        """For each letter, A first, the tokens with which an answer may begin: "A" and " A" as far as they differ.

        Empty for letters, beyond the first four, that are not one token.

        Raises:
            CrossmedError: If A to D are not one token each after the prompt, or two letters share one.
        """
        prompt = self.prompt("?", image=False)
        (base,) = self.encode([prompt])
        found: list[list[int]] = [[] for _ in LETTERS]
        for space in ("", " "):
            spelt = [
                ids[-1] if ids[:-1] == base else None for ids in self.encode([f"{prompt}{space}{x}" for x in LETTERS])
            ]
            # A spelling that only some of the letters have would weigh them differently.
            if None in spelt[:LEAST_LETTERS]:
                continue
            for tokens, token in zip(found, spelt, strict=True):
                if token is not None and token not in tokens:
                    tokens.append(token)
        every = [token for tokens in found for token in tokens]
        if not found[0] or len(set(every)) < len(every):
            raise CrossmedError(
                f"Model {self.name!r}: its tokenizer has no single, distinct tokens for the letters A to D.",
                hint="Ask it with --set scoring=generate.",
                exit_code=ExitCode.ENVIRONMENT,
            )
        return tuple(tuple(sorted(tokens)) for tokens in found)

    def answer_ids(self, answer: str) -> list[int]:
        """Return the tokens that a model is trained to say after the prompt: the answer and the end of its turn."""
        if answer not in self._answers:
            self._answers[answer] = self._answer_ids(answer)
        return self._answers[answer]

    def _answer_ids(self, answer: str) -> list[int]:
        prompt = self.prompt("?", image=False)
        before = self._rendered([{"type": "text", "text": "?"}], answer)
        (base,), (whole,) = self.encode([prompt]), self.encode([before])
        ends = self.ends
        if whole[: len(base)] == base and len(whole) > len(base):
            said = whole[len(base) :]
            stop = next((place for place, token in enumerate(said) if token in ends), None)
            if stop is not None:
                return said[: stop + 1]
            # Templates that leave the end of an answer open, e.g. a space after it: the model must learn to stop.
            plain = self.encode([f"{before.rstrip()}"])[0][len(base) :]
            return [*plain, self.end]
        said = self.encode([f"{prompt}{answer}"])[0][len(base) :]
        return [*said, self.end]

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset({self.tokenizer.eos_token_id, *self._turn_ends()} - {None})

    @property
    def end(self) -> int:
        """The token that a model is trained to end an answer with."""
        return int(self.tokenizer.eos_token_id)

    def _turn_ends(self) -> set[int]:
        names = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<end_of_utterance>", "</s>")
        vocabulary = self.tokenizer.get_vocab()
        return {int(vocabulary[name]) for name in names if name in vocabulary}
