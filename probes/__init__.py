"""Measurements on language models and pure linear algebra on their matrices."""
