"""The doors between rooms, read off each file's own imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "data", "probes", "toymodels")
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
MAY_ENTER = {
    "data": {"data"},
    "toymodels": {"toymodels", "data"},
    "probes": {"probes", "data"},
    "app": {"app", "probes", "toymodels", "data"},
}
KEEPERS = {
    "transformers": ("probes/models", "toymodels/language"),
    "transformer_lens": ("probes/models", "toymodels/model"),
    "sae_lens": ("probes/saes", "toymodels/dictionary"),
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_file_imports_only_through_the_doors(path: Path) -> None:
    place = path.relative_to(ROOT)
    modules = imported(path)
    packages = {name.split(".")[0] for name in modules}
    room = place.parts[0]
    assert packages & set(ROOMS) <= MAY_ENTER[room]
    if room == "data":
        assert "torch" not in packages
    if place.parts[:2] == ("app", "figures"):
        assert not packages & {"torch", "streamlit", "probes", "toymodels"}
    for library, keepers in KEEPERS.items():
        if library in packages:
            assert str(place).startswith(keepers), f"{place} imports {library}; only {keepers} may"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_stay_small(path: Path) -> None:
    assert path.name != "utils.py"
    assert len(path.read_text().splitlines()) <= 380, f"{path} has grown into two rooms"


def test_the_check_itself_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    import torch.nn\n    from transformers import AutoModel\n")
    assert imported(file) == {"torch.nn", "transformers"}
