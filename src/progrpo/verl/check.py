"""Checks made before a run: that the verl plugin is loaded, and that verl accepts the settings.

verl hides the failure of a plugin, so it is looked for here. ``python -m progrpo.verl.check`` and ``progrpo doctor``
check this machine, with ``--ray`` every node of a Ray cluster, and the trainer checks its workers when it starts.
"""

import argparse
import contextlib
import io
import logging
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Any

from progrpo.common.environment import package_versions
from progrpo.common.errors import ConfigError

TRAINER_MODE = "progrpo"
TRAINERS = "verl.trainer.ppo.v1"
"""verl's package of trainers; the plugin registers ours as soon as it is imported."""
SUPPORTED = "0.9.1"
"""The version of verl that the plugin is tested with. The plugin overrides private methods of verl."""


@dataclass(frozen=True)
class PluginState:
    """The plugin in one process: the versions installed there, and the problem if the plugin is not loaded."""

    problem: str | None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    progrpo: str = field(default_factory=lambda: version("progrpo"))
    verl: str | None = field(default_factory=lambda: package_versions()["verl"])

    def __str__(self) -> str:
        tested = self.verl in (None, SUPPORTED)
        note = "" if tested else f" (verl is {self.verl}; tested with {SUPPORTED})"
        return (self.problem or f"trainer.v1.trainer_mode={TRAINER_MODE} is there") + note


def check_plugin() -> PluginState:
    """Check whether this process has ``trainer.v1.trainer_mode=progrpo`` and, if not, why: verl hides the errors of a
    plugin, so its steps are repeated here."""
    installed = package_versions()["verl"]
    if installed is None:
        return PluginState("verl is not installed; pip install 'progrpo[verl]'")
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and TRAINER_MODE not in {name.strip() for name in policy.split(",")}:
        return PluginState(f"VERL_USE_EXTERNAL_PLUGINS={policy} leaves progrpo out; unset it, or add progrpo")
    if not entry_points(group="verl.plugins", name=TRAINER_MODE):
        return PluginState(
            f"the installed progrpo {version('progrpo')} has no entry point in verl.plugins; install it again "
            "(pip install --no-deps -e . in a checkout)"
        )
    try:
        trainer = import_module(TRAINERS).get_trainer_cls(TRAINER_MODE)
    except Exception as error:
        return PluginState(f"verl {installed} can't load its trainers: {type(error).__name__}: {error}")
    return PluginState(getattr(trainer, "problem", None))


def check_workers(workers: Sequence[Any]) -> None:
    """Check that each of these Ray actors has loaded the plugin, in the version of this process.

    Raises:
        ConfigError: a worker has not loaded it, or has another version; the message names its host.
    """
    here = version("progrpo")
    for state in _ask([worker.__ray_call__.remote(_loaded) for worker in workers]):
        if state.problem is not None:
            raise ConfigError(f"The verl plugin is not loaded on {state.host} (pid {state.pid}): {state}.")
        if state.progrpo != here:
            raise ConfigError(
                f"progrpo is {state.progrpo} on {state.host} and {here} in the driver; install the same on every node."
            )
    place = f"in the driver and in {len(workers)} workers"
    print(f"progrpo {here}: the verl plugin is loaded {place}: {PluginState(None)}", flush=True)


def check_nodes() -> list[PluginState]:
    """The state of each node of the Ray cluster that this process is connected to."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check = ray.remote(num_cpus=0)(check_plugin)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    return _ask([check.options(scheduling_strategy=place).remote() for place in places])


def _loaded(actor: Any) -> PluginState:
    """The state of a worker after its own ``import verl``: nothing more is imported, to see what verl has loaded."""
    if "progrpo.verl.plugin" in sys.modules:
        return PluginState(None)
    return PluginState(check_plugin().problem or "verl did not load it")


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


def check_settings(command: list[str]) -> None:
    """Have verl read and check the settings of :func:`progrpo.verl.settings.verl_command` before Ray is started.

    Raises:
        ConfigError: verl is missing or has another version, or it does not know a setting or refuses its value.
    """
    installed = package_versions()["verl"]
    if installed != SUPPORTED:
        other = f" ({installed} is)" if installed else ""
        raise ConfigError(
            f"engine 'verl' needs verl {SUPPORTED}, which is not installed here{other}: pip install 'progrpo[verl]' in "
            "an environment of its own (docs/verl.md), or use engine = 'trl'."
        )
    overrides = [override for override in command[3:] if not override.startswith("hydra.")]
    try:
        # verl logs its platform, warns of engines that are not installed, and prints a congratulation.
        logging.disable(logging.INFO)
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            _validate(overrides)
    except ConfigError:
        raise
    except Exception as error:  # Hydra's, OmegaConf's, verl's own assertions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"verl {SUPPORTED} refuses the settings of this recipe: {reason}") from None
    finally:
        logging.disable(logging.NOTSET)


def _validate(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_module
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides)
    validate_config(config, need_reference_policy(config), need_critic(config))
    if config.trainer.v1.trainer_mode == TRAINER_MODE:
        state = check_plugin()
        if state.problem is not None:
            raise ConfigError(f"engine 'verl' needs progrpo's plugin for it: {state}.")
        from progrpo.verl.trainer import read_options

        read_options(config)


def main() -> int:
    """Print the state of this machine, or of every node; return 1 if the plugin is missing somewhere."""
    parser = argparse.ArgumentParser(
        prog="python -m progrpo.verl.check",
        description="Check that progrpo's verl plugin is loaded.",
        epilog="Example: python -m progrpo.verl.check --ray auto",
    )
    nodes = "check every node of this Ray cluster (auto: the one that runs here)"
    parser.add_argument("--ray", metavar="ADDRESS", help=nodes)
    address = parser.parse_args().ray
    if address is not None:
        import ray

        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            sys.exit(f"There is no Ray cluster at --ray {address}: {error}")
    states = [check_plugin()] if address is None else check_nodes()
    for state in states:
        print(f"{state.host}: progrpo {state.progrpo}, verl {state.verl}: {state}")
    return int(any(state.problem for state in states))


if __name__ == "__main__":
    sys.exit(main())
