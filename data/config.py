"""Settings that are frozen, refuse unknown names, and hash to the same value everywhere."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
"""A number in [0, 1]."""

LARGEST = 10**12
"""Greatest whole number in settings: seeds are multiplied, and what is counted is counted in 64 bits."""


class Config(BaseModel):
    """Base of every settings object: immutable, strict about names, documented field by field, of finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _within_reach(self) -> "Config":
        for name in type(self).model_fields:
            _check_size(name, getattr(self, name))
        return self

    def digest(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the settings; equal settings, equal digest."""
        return digest(self.model_dump(mode="json"))


def _check_size(name: str, value: Any) -> None:
    """ValueError for a whole number beyond `LARGEST`, or what JSON cannot hold, however deep it lies."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            _check_size(name, part)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{name} holds a number beyond {LARGEST:,}; give a smaller one")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} holds {value}; give a finite number")
    elif isinstance(value, bytes):
        raise ValueError(f"{name} holds bytes; give text or a number")


def digest(value: Any) -> str:
    """First 12 hexadecimal digits of the SHA-256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
