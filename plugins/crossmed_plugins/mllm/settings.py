"""The options of the family, checked. Needs no library, so that a plan can refuse a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from crossmed_core.errors import CrossmedError
from crossmed_plugins.mllm.architectures import MAX_PIXELS
from crossmed_plugins.mllm.instruction import INSTRUCTION

_CHOICES = {
    "scoring": ("letters", "generate"),
    "segmentation": ("letters", "box"),
    "dtype": ("", "float32", "bfloat16", "float16"),
    "attention": ("", "sdpa", "flash_attention_2", "eager"),
    "tuning": ("lora", "full"),
    "vision": ("frozen", "trained"),
}


@dataclass(frozen=True)
class Settings:
    """Options as the plugin's record describes them; "" and 0 stand for the default that depends on device or rank."""

    name: str = ""
    revision: str = ""
    scoring: str = "letters"
    segmentation: str = "letters"
    instruction: str = INSTRUCTION
    system: str | None = None
    max_pixels: int = MAX_PIXELS
    max_new_tokens: int = 32
    dtype: str = ""
    attention: str = ""
    token_budget: int = 0
    reuse: bool = True
    adapter: str = ""
    tuning: str = "lora"
    vision: str = "frozen"
    lora_rank: int = 16
    lora_alpha: int = 0
    lora_dropout: float = 0.05
    checkpointing: bool = False
    processes: int = 1
    accelerate_config: str = ""
    trust_remote_code: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Check options.

        Raises:
            CrossmedError: Naming the option and what it must be.
        """
        kinds = {one.name: str(one.type) for one in fields(cls)}
        checked: dict[str, Any] = {}
        for name, given in options.items():
            value: Any = given
            kind = kinds[name]
            if kind == "float" and type(value) is int:
                value = float(value)
            wanted: Any = {"bool": bool, "int": int, "float": float}.get(kind, str)
            if type(value) is not wanted:
                words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[wanted]
                raise CrossmedError(f"{name} must be {words}, not {given!r}.")
            if name in _CHOICES and value not in _CHOICES[name]:
                known = ", ".join(choice for choice in _CHOICES[name] if choice)
                raise CrossmedError(f"{name} must be one of {known}, not {given!r}.")
            least = 0 if name in ("token_budget", "lora_alpha") else 1
            if wanted is int and value < least:
                raise CrossmedError(f"{name} must be at least 1, not {given!r}.")
            if name == "lora_dropout" and not 0 <= value < 1:
                raise CrossmedError(f"lora_dropout must be at least 0 and less than 1, not {given!r}.")
            checked[name] = value
        return cls(**checked)

    def precision(self, device: str) -> str:
        """Return the dtype in which the model answers: bfloat16 on CUDA, float32 elsewhere, unless set."""
        return self.dtype or ("bfloat16" if device == "cuda" else "float32")

    def budget(self, device: str) -> int:
        """Return the tokens per batch of answers."""
        return self.token_budget or (32768 if device == "cuda" else 2048)
