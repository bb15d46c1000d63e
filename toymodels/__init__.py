"""Toy models of superposition: synthetic features, no language model."""
