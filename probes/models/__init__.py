"""The one door to a language model; nobody else imports transformers or transformer_lens."""

from probes.models.door import ModelError, known_models, open_model
from probes.models.language_model import Block, LanguageModel
from probes.models.sites import SITES

__all__ = ["SITES", "Block", "LanguageModel", "ModelError", "known_models", "open_model"]
