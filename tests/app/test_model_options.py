"""Every verb that opens a model takes the same options for it, and passes them on."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import probes
import probes.models
from app.cli import cli
from probes import open_model

PROBES = ["sparsity", "keep", "kinds", "ladder", "rank", "memory", "sae", "secret", "experts", "worth"]
VERBS = [f"probe {name} --model here" for name in PROBES]
VERBS += ["models here", "coherence measure here#layer-0-down", "coherence router here", "coherence parts here"]


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_said_of_the_model_reaches_the_door(
    verb: str, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def door(source: str, **options: Any) -> None:
        seen.append(options | {"source": source})
        raise ValueError("seen")

    monkeypatch.setattr(probes, "open_model", door, raising=False)
    monkeypatch.setattr(probes.models, "open_model", door)
    for more, expected in (([], (None, False)), (["--device-map", "auto", "--trust-remote-code"], ("auto", True))):
        done = CliRunner().invoke(cli, [*verb.split(), *more])
        assert done.exit_code == 2 and "seen" in done.stderr, done.output
        assert (seen[-1]["device_map"], seen[-1]["trust_remote_code"]) == expected
    assert len(seen) == 2 and seen[0]["source"] == "here"


def test_a_models_own_code_is_refused_in_a_sentence_and_not_run(tmp_path: Path) -> None:
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "own.Mine", "AutoModelForCausalLM": "own.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ValueError, match=r"brings its own code.*--trust-remote-code"):
        open_model(tmp_path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="cannot be opened"):
        open_model(tmp_path, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
