"""Students kept in a run, and the model rebuilt with them: as a model to probe, and as a folder for transformers."""

from collections.abc import Iterable
from pathlib import Path

from data.runs import Run
from probes.models import LanguageModel, open_model
from probes.models.secret_mixture import STUDENT
from probes.secret.fitting import Fit
from probes.secret.students import CellMixture


def keep(run: Run, fits: Iterable[Fit]) -> None:
    """Write each fit's student as `student_LAYER.safetensors`; ValueError for a student that is no mixture of cells."""
    for found in fits:
        if not isinstance(found.student, CellMixture):
            raise ValueError(
                f"the student '{found.config.method}' cannot be kept as a mixture; keep one fitted in closed form"
            )
        run.save_tensors(f"{STUDENT}{found.config.layer}", found.student.arrays())


def students(run: Run) -> dict[int, CellMixture]:
    """The students that `keep` wrote, by layer."""
    names = [name for name in run.tensor_names() if name.startswith(STUDENT)]
    return {int(name.removeprefix(STUDENT)): CellMixture.of(run.tensors(name)) for name in names}


def export(model: LanguageModel, run: Run, folder: Path | str) -> Path:
    """Write the model with its secret experts as a folder that transformers opens once `probes` is imported.

    >>> import probes
    >>> AutoModelForCausalLM.from_pretrained(folder)        # no remote code
    """
    rebuilt = open_model(model, secret_experts=run)
    rebuilt.hf.save_pretrained(folder)
    if rebuilt.tokenizer is not None:
        rebuilt.tokenizer.save_pretrained(folder)
    return Path(folder)
