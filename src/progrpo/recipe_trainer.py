"""The trainer of a recipe: ProGRPOTrainer, and how it saves and loads its state."""

import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_utils import rotate_checkpoints

from progrpo.integrations.trl import ProGRPOTrainer


class RecipeTrainer(ProGRPOTrainer):
    """ProGRPOTrainer whose checkpoints are whole or not there."""

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
                self._publish(self._staging / f"checkpoint-{self.state.global_step}", final)
        finally:
            self._staging = None

    def _publish(self, written: Path, final: Path) -> None:
        target = final / written.name
        if target.exists():
            shutil.rmtree(target)
        written.rename(target)
        shutil.rmtree(written.parent)
        rotate_checkpoints(output_dir=str(final), save_total_limit=self.keep_checkpoints)
