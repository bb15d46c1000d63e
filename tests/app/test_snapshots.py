from pathlib import Path

import numpy as np
import pytest

from app.snapshots import SnapshotsRun, measure
from data.corpus import Corpus
from tests.app.test_series import LITTLE, corpus  # noqa: F401
from toymodels.language import train
from toymodels.language_config import LanguageConfig


def test_every_snapshot_is_measured_on_the_same_unread_tokens(tmp_path: Path, corpus: Corpus) -> None:  # noqa: F811
    config = LanguageConfig.model_validate(LITTLE.model_dump() | {"snapshots": 2})
    index = train(config, tmp_path, corpus=corpus)
    tables = measure(SnapshotsRun(folder=str(tmp_path), n_tokens=500, permutations=20), corpus=corpus)
    assert tables.snapshots.equals(index)
    steps = sorted(index["step"])
    for name in ("routing", "specialization", "by_class", "saturation", "purest"):
        assert sorted(tables[name]["step"].unique()) == steps, name
    last = tables.saturation[tables.saturation["step"] == steps[-1]]
    np.testing.assert_allclose(last["value"], 1)
    first = tables.saturation[tables.saturation["step"] == 0]
    assert (first["value"] < 1).all()
    slots = tables.by_class.query("labels == 'word_class'").groupby(["step", "layer"])["n"].sum()
    assert slots.nunique() == 1


def test_a_folder_without_a_training_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training"):
        measure(SnapshotsRun(folder=str(tmp_path)))
