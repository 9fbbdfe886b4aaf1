"""Checkpoints that appear whole or not at all, and a loss that stops a run when it is no number any more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers.trainer_utils import get_last_checkpoint

from cmbert_retrieval.errors import CmbertError, StorageError
from cmbert_retrieval.storage import fsync_folder, fsync_tree

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object

_BUILDING = ".building"


class DivergedError(CmbertError):
    """The loss is no number any more."""


class SafeTraining(_Base):  # type: ignore[misc]
    """Goes before a trainer of transformers in the bases of a class."""

    kept = 2
    """Checkpoints that are kept."""

    def compute_loss(self, model: torch.nn.Module, inputs: Any, *more: Any, **settings: Any) -> Any:
        """Return what the trainer does.

        Raises:
            DivergedError: that is no number.
        """
        result = super().compute_loss(model, inputs, *more, **settings)
        if not torch.isfinite(result[0] if isinstance(result, tuple) else result):
            raise DivergedError(
                f"step {self.state.global_step + 1}: the loss is not a number any more; the last "
                "checkpoint is kept. A lower learning rate, a longer warm-up or fp32 may help"
            )
        return result

    def _get_output_dir(self, trial: Any) -> str:
        """Return where checkpoints are written until they are whole."""
        return str(Path(self.args.output_dir) / _BUILDING)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint that appears under its name at once, then drop the oldest.

        Raises:
            StorageError: it cannot be written, as when the disk is full; the former ones are untouched.
        """
        building = Path(self._get_output_dir(trial))
        if self.args.should_save:
            shutil.rmtree(building, ignore_errors=True)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch tells a full disk as RuntimeError
            shutil.rmtree(building, ignore_errors=True)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise StorageError(
                f"{self.args.output_dir}: the checkpoint of step {self.state.global_step} cannot be written "
                f"({reason}); the former one stays, and the same command goes on from it"
            ) from error
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            target = Path(self.args.output_dir)
            for made in building.iterdir():
                fsync_tree(made)
                shutil.rmtree(target / made.name, ignore_errors=True)
                made.rename(target / made.name)
            building.rmdir()
            fsync_folder(target)
            for old in checkpoints(target)[: -self.kept]:
                shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a run, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, or None."""
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return Path(found) if found else None
