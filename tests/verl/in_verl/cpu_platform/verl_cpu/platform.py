"""``VERL_PLATFORM=cpu``: the functions of an accelerator that verl needs, on a CPU."""

import types
from typing import Any

import torch
import torch.distributed
from verl.plugin.platform.platform_cuda import PlatformCUDA
from verl.plugin.platform.platform_manager import PlatformRegistry


class _DeviceModule(types.ModuleType):
    """``torch.cpu``, with the functions of ``torch.cuda`` that verl calls."""

    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)
    is_available = staticmethod(lambda: True)
    get_device_name = staticmethod(lambda *args: "cpu")
    mem_get_info = staticmethod(lambda *args: (0, 0))
    empty_cache = set_device = reset_peak_memory_stats = ipc_collect = staticmethod(lambda *args: None)
    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = staticmethod(lambda *args: 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformCUDA):
    """Ray still hands out as many "GPUs" as ``ray.init`` sets: placement works as on a real machine."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DeviceModule("verl_cpu.device")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def is_ipc_supported(self) -> bool:
        return False


_init_process_group = torch.distributed.init_process_group


def _init_with_one_backend(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
    # verl asks for "cpu:gloo,<device>:<backend>", and torch refuses a device that is named twice.
    _init_process_group("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)


torch.distributed.init_process_group = _init_with_one_backend

# verl pins the memory of a reference model, which torch refuses without a GPU.
torch.Tensor.pin_memory = lambda tensor, *args: tensor
