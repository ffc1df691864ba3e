"""``progrpo``, launched by a test on several CPU processes: ``python distributed_progrpo.py train ...``.

It differs from ``python -m progrpo`` in two things. With FSDP, accelerate treats the CPUs as GPUs, because it shards
only on GPUs; gloo and torch's ``fully_shard`` then work as usual. And ``torch.load`` without ``weights_only=True``,
which could run code, is an error.
"""

import os
import sys
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from progrpo.cli import main


def let_fsdp_run_on_cpus() -> None:
    init = AcceleratorState.__init__

    def init_as_gpus(self: Any, *args: Any, **kwargs: Any) -> None:
        if PartialState(cpu=True).distributed_type is DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        init(self, *args, **kwargs)

    AcceleratorState.__init__ = init_as_gpus  # type: ignore[method-assign]


def load_data_alone(*args: Any, **kwargs: Any) -> Any:
    assert kwargs.get("weights_only") is True, "torch.load could run code"
    return load(*args, **kwargs)


if __name__ == "__main__":
    load, torch.load = torch.load, load_data_alone
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        let_fsdp_run_on_cpus()
    sys.argv[0] = "progrpo"
    main()
