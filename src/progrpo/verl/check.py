"""Is the verl plugin loaded? verl hides a plugin's failure, so it is asked here.

``python -m progrpo.verl.check`` says so for this machine, and with ``--ray`` for every node of a running
Ray cluster; so does ``progrpo doctor`` for this machine. The trainer asks its workers when it starts.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

from progrpo.common.errors import ConfigError

TRAINER_MODE = "progrpo"
TRAINERS = "verl.trainer.ppo.v1"
"""verl's package of trainers; once it is imported, ours is registered."""
PLUGIN = "progrpo.verl.plugin"
"""What the entry point loads. Not imported here: that it is there says that verl has loaded it."""
GROUP = "verl.plugins"
VERL_VERSIONS = ("0.9.1",)
"""What the plugin is tested with: it overrides private methods."""


@dataclass(frozen=True)
class PluginState:
    """One process: where it is, what is installed there, and why there is no plugin (None: it is loaded)."""

    host: str
    pid: int
    progrpo: str
    verl: str | None
    problem: str | None


def check_plugin() -> PluginState:
    """Whether ``trainer.v1.trainer_mode=progrpo`` is there in this process, and if not why.

    verl's own loading is repeated step by step, for it swallows what goes wrong.
    """
    return PluginState(socket.gethostname(), os.getpid(), version("progrpo"), _verl_version(), _problem())


def _problem() -> str | None:
    installed = _verl_version()
    if installed is None:
        return "verl is not installed; pip install 'progrpo[verl]'"
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and TRAINER_MODE not in {name.strip() for name in policy.split(",")}:
        return f"VERL_USE_EXTERNAL_PLUGINS={policy} leaves progrpo out; unset it, or add progrpo"
    if not entry_points(group=GROUP, name=TRAINER_MODE):
        return (
            f"the installed progrpo {version('progrpo')} has no entry point in {GROUP}; install it again "
            "(pip install --no-deps -e . in a checkout)"
        )
    try:
        trainer = import_module(TRAINERS).get_trainer_cls(TRAINER_MODE)
    except Exception as error:
        return f"verl {installed} can't load its trainers: {type(error).__name__}: {error}"
    problem: str | None = getattr(trainer, "problem", None)
    return problem and problem + _untested(installed)


def _untested(installed: str | None) -> str:
    return "" if installed in VERL_VERSIONS else f" (verl is {installed}; tested with {', '.join(VERL_VERSIONS)})"


def check_workers(workers: Sequence[Any]) -> None:
    """Raise unless each of these Ray actors has loaded the plugin, in the version of this process.

    Raises:
        ConfigError: names the host.
    """
    here = version("progrpo")
    for state in _ask([worker.__ray_call__.remote(_loaded) for worker in workers]):
        _check(state, here)
    note = _untested(_verl_version())
    print(f"progrpo {here}: the verl plugin is loaded in the driver and in {len(workers)} workers{note}", flush=True)


def check_nodes() -> list[PluginState]:
    """The state of each node of the Ray cluster that this process is connected to."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(check_plugin)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return _ask(
        [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes]
    )


def _loaded(actor: Any) -> PluginState:
    """In a worker: has ``import verl`` loaded the plugin? Nothing is imported here that was not before."""
    problem = None if PLUGIN in sys.modules else _problem() or "verl did not load it"
    return PluginState(socket.gethostname(), os.getpid(), version("progrpo"), _verl_version(), problem)


def _ask(answers: list[Any]) -> list[PluginState]:
    import ray

    try:
        return list(ray.get(answers))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise ConfigError(
            f"A Ray worker can't load progrpo's plugin ({type(cause).__name__}: {cause}); install progrpo "
            f"{version('progrpo')} on every node."
        ) from None


def _check(state: PluginState, here: str) -> None:
    if state.problem is not None:
        raise ConfigError(f"The verl plugin is not loaded on {state.host} (pid {state.pid}): {state.problem}.")
    if state.progrpo != here:
        raise ConfigError(
            f"progrpo is {state.progrpo} on {state.host} and {here} in the driver; install the same on every node."
        )


def _verl_version() -> str | None:
    try:
        return version("verl")
    except PackageNotFoundError:
        return None


def main() -> int:
    """Print the state here, or of every node; 1 if the plugin is missing somewhere."""
    parser = argparse.ArgumentParser(
        prog="python -m progrpo.verl.check",
        description="Is progrpo's verl plugin loaded?",
        epilog="Example: python -m progrpo.verl.check --ray auto",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="ask every node of this Ray cluster (auto: the one found here)"
    )
    address = parser.parse_args().ray
    if address is None:
        states = [check_plugin()]
    else:
        import ray

        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            print(f"There is no Ray cluster at --ray {address}: {error}", file=sys.stderr)
            return 1
        states = check_nodes()
    for state in states:
        verdict = state.problem or f"trainer.v1.trainer_mode={TRAINER_MODE} is there{_untested(state.verl)}"
        print(f"{state.host}: progrpo {state.progrpo}, verl {state.verl}: {verdict}")
    return int(any(state.problem for state in states))


if __name__ == "__main__":
    sys.exit(main())
