"""What the sources must not do, read off their syntax."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(p for room in ("app", "data", "probes", "toymodels") for p in (ROOT / room).rglob("*.py"))
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
"""Modules that run what they read."""
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}


def faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in UNSAFE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE:
            yield f"imports {node.module}"
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        yield "np.load without allow_pickle=False"
    if name in ("pd.read_pickle", "yaml.load", "os.system", "os.popen", *RUNS_TEXT):
        yield f"calls {name}"
    if name.startswith("subprocess.") and given.get("shell", "False") != "False":
        yield "runs a shell"
    if given.get("trust_remote_code") == "True":
        yield "trusts remote code without being asked to"
    if given.get("unsafe_allow_html", "False") != "False" or name.endswith("components.v1.html"):
        yield "draws HTML as it comes"
    if name.endswith("Model.from_pretrained") and given.get("use_safetensors") != "True":
        yield "may read weights that are pickles"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_read_is_run(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, mmap_mode='r')",
        "np.load(path, allow_pickle=flag)",
        "pd.read_pickle(path)",
        "subprocess.run(text, shell=True)",
        "open_model(name, trust_remote_code=True)",
        "st.markdown(text, unsafe_allow_html=True)",
        "eval(text)",
        "AutoModel.from_pretrained(place)",
    ],
)
def test_the_check_itself_finds_each(source: str) -> None:
    assert list(faults(source))


def test_html_is_drawn_in_two_places_which_escape() -> None:
    """Both are fed markup in tests/app/test_memories_page.py and tests/app/test_experts_page.py."""
    drawn = [p.name for p in FILES if "st.html(" in p.read_text(encoding="utf-8")]
    assert sorted(drawn) == ["experts.py", "memories.py"]
