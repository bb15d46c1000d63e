"""Measurements on language models and pure linear algebra on their matrices."""

from typing import TYPE_CHECKING, Any

from probes.registering import register_later

if TYPE_CHECKING:
    from probes.models import LanguageModel, ModelError, open_model

__all__ = ["LanguageModel", "ModelError", "open_model"]


def __getattr__(name: str) -> Any:
    """Names from `probes.models`, imported when first asked for: linear algebra needs no transformers."""
    if name in __all__:
        import probes.models

        return getattr(probes.models, name)
    raise AttributeError(f"module 'probes' has no attribute '{name}'")


register_later()
