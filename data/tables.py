"""The interface between measuring and showing: named, tidy pandas frames."""

from typing import Any

from pandas import DataFrame


class Tables(dict[str, DataFrame]):
    """Frames by name, one row an observation; `tables.layers` reads `tables["layers"]`."""

    def __getattr__(self, name: str) -> DataFrame:
        """The frame called `name`."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no table '{name}'; there are {', '.join(self) or 'none'}") from None

    def __setattr__(self, name: str, frame: Any) -> None:
        """Refused: a table is set by key, so that a typo cannot make a new one."""
        raise AttributeError(f"set a table with tables['{name}'] = frame")
