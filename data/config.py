"""Settings that are frozen, refuse unknown names, and hash to the same value everywhere."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
"""A number in [0, 1]."""


class Config(BaseModel):
    """Base of every settings object: immutable, strict about names, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def digest(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the settings; equal settings, equal digest."""
        return digest(self.model_dump(mode="json"))


def digest(value: Any) -> str:
    """First 12 hexadecimal digits of the SHA-256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
