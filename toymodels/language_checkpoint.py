"""All that a training of a small language model remembers, on disk: weights, AdamW's moments, the step."""

from pathlib import Path

import torch
from torch import nn

from data.files import reading, replacing
from toymodels.language_config import LanguageConfig


def optimizer(model: nn.Module, config: LanguageConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def save_checkpoint(folder: Path, model: nn.Module, adam: torch.optim.AdamW, step: int) -> None:
    """Write `checkpoint.safetensors`, from which training goes on to the same weights bit for bit."""
    from safetensors.torch import save_file

    arrays = {"step": torch.tensor(step)}
    for name, parameter in model.named_parameters():
        arrays[f"weight/{name}"] = parameter.detach().contiguous()
        arrays |= {f"{key}/{name}": value.contiguous() for key, value in adam.state[parameter].items()}
    buffers = {f"buffer/{n}": b.contiguous() for n, b in model.named_buffers() if n in model.state_dict()}
    with replacing(folder / "checkpoint.safetensors", sealed=True) as temporary:
        save_file(arrays | buffers, temporary)


@torch.no_grad()
def restore(folder: Path, model: nn.Module, adam: torch.optim.AdamW) -> int | None:
    """Take up the checkpoint; the step it was made after, None if there is none."""
    from safetensors.torch import load_file

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    arrays = reading(path, load_file)
    for name, buffer in model.named_buffers():
        if f"buffer/{name}" in arrays:
            buffer.copy_(arrays[f"buffer/{name}"])
    for name, parameter in model.named_parameters():
        parameter.copy_(arrays[f"weight/{name}"])
        keys = [k for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}/{name}" in arrays]
        if keys:
            adam.state[parameter] = {k: arrays[f"{k}/{name}"] for k in keys}
    return int(arrays["step"])
