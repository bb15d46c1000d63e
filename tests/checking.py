"""The type checker that the tests put on every function whose signature states shapes."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int may stand where a float is asked for, as the type checker has it."""
