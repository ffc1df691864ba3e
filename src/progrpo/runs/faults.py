"""Reports a fault of the disk or of a server in one sentence that says how to continue the run."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch.distributed.checkpoint.api import CheckpointException

from progrpo.common.errors import RunError
from progrpo.common.files import storage_fault
from progrpo.runs.folder import RunFolder


@contextmanager
def explain_faults(
    folder: RunFolder, server_fault: Callable[[BaseException], str | None] = lambda error: None
) -> Iterator[None]:
    """Turn faults from outside into a :class:`RunError`, and note them in events.jsonl.

    Args:
        folder: where the run writes.
        server_fault: describes the error of a server that the run needs and can't reach; None for other errors.

    Raises:
        RunError: a file could not be stored, or a server could not be reached.
    """
    try:
        yield
    except (Exception, CheckpointException) as error:  # the second is a BaseException
        if reason := storage_fault(error):
            free = shutil.disk_usage(folder.path).free
            what = f"{str(folder.path)!r} can't be written any more: {reason} ({free / 1e6:,.1f} MB free on its disk)"
            remedy = "what was recorded before is kept; make room"
        elif reason := server_fault(error):
            what, remedy = reason, "start it again"
        else:
            raise
        checkpoint = folder.last_checkpoint()
        start = f"from {checkpoint.name}" if checkpoint else "from the start, as no checkpoint had been written,"
        with suppress(OSError):
            folder.note("fault", reason=reason)
        raise RunError(f"{what}; {remedy}, and continue {start} with: progrpo train --resume {folder.path}") from error
