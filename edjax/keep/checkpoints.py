"""Training checkpoints by orbax: (adapter, optimiser state) and a JSON record, complete or absent."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import jax


class Checkpoints:
    """The newest `keep` checkpoints under a directory, written synchronously."""

    def __init__(self, directory: str | Path, keep: int = 2):
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, step: int, state: Any, data: dict[str, Any]) -> None:
        """Write the checkpoint of a step; one of the same step that is there already is kept."""
        args = self._ocp.args.Composite(state=self._ocp.args.StandardSave(state), data=self._ocp.args.JsonSave(data))
        with contextlib.suppress(self._ocp.checkpoint_manager.StepAlreadyExistsError):
            self._manager.save(step, args=args)
        self._manager.wait_until_finished()

    def latest(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, data) of the newest complete checkpoint, shaped `like` the state given; None without one.

        A damaged checkpoint is named on stderr and removed, so that its step can be saved again.
        """
        args = self._ocp.args
        abstract = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
        wanted = args.Composite(state=args.StandardRestore(abstract), data=args.JsonRestore())
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step, before in zip(steps, [*steps, None][1:], strict=True):
            try:
                got = self._manager.restore(step, args=wanted)
            except Exception as e:  # orbax raises a dozen kinds for a file that is missing or cut short
                where = "the start" if before is None else f"step {before}"
                print(
                    f"edjax: checkpoint {self._directory / str(step)} is damaged ({type(e).__name__}); "
                    f"going on from {where}",
                    file=sys.stderr,
                )
                self._manager.delete(step)
                continue
            return step, got["state"], got["data"]
        return None

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()
