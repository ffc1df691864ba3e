"""The trainer of a recipe: ProGRPOTrainer, and how it saves and loads its state."""

import shutil
from pathlib import Path
from typing import Any

from progrpo import checkpoints
from progrpo.finite import FiniteGuard
from progrpo.integrations.trl import ProGRPOTrainer


class RecipeTrainer(FiniteGuard, ProGRPOTrainer):
    """ProGRPOTrainer whose checkpoints are whole or not there, and which stops before an update that is no number."""

    keep_checkpoints = 2
    _staging: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = Path(self.args.output_dir)
        self._staging = final / ".saving.tmp"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                written = self._staging / f"checkpoint-{self.state.global_step}"
                checkpoints.publish(written, final, self.keep_checkpoints)
        finally:
            if self.args.should_save:  # half of a checkpoint would only take the space that the next try needs
                shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
