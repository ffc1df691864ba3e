"""How verl loads the plugin, what the plugin refuses, and how the checks find that it is not loaded."""

import doctest
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import EntryPoints
from typing import Any

import pytest
from tests.verl.in_verl.verl_run import skip_without_verl

from progrpo.common.errors import ConfigError
from progrpo.verl import check as verl_check

skip_without_verl()


def run_in_new_process(code: str) -> Any:
    """Run the code and read the last line that it prints as JSON."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_verl_registers_the_trainer_and_loads_no_trainer() -> None:
    printed = run_in_new_process(
        "import json, sys, verl\n"
        "early = [name for name in sys.modules if name.startswith(('verl.trainer', 'progrpo.verl.b'))]\n"
        "from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls\n"
        "trainer = get_trainer_cls('progrpo')\n"
        "from progrpo.verl.trainer import ProGRPOTrainer\n"
        "print(json.dumps([early, trainer is ProGRPOTrainer, issubclass(trainer, PPOTrainerSync)]))"
    )
    assert printed == [[], True, True]


def test_the_examples_in_the_trainers_docstrings() -> None:
    """Where verl is not installed, `make doctest` leaves this module out."""
    from progrpo.verl import trainer

    failed, tried = doctest.testmod(trainer)
    assert tried
    assert not failed


def test_the_trainer_can_be_imported_first() -> None:
    printed = run_in_new_process(
        "import json\n"
        "from progrpo.verl import ProGRPOTrainer\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "print(json.dumps(get_trainer_cls('progrpo') is ProGRPOTrainer))"
    )
    assert printed is True


def test_a_plugin_that_fails_raises_its_error_in_the_trainers_place() -> None:
    message, problem, registered = run_in_new_process(
        "import json, sys\n"
        "sys.modules['progrpo.verl.batch'] = None  # its import fails\n"
        "from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, get_trainer_cls\n"
        "from progrpo.verl.check import check_plugin\n"
        "try: get_trainer_cls('progrpo')(None)\n"
        "except Exception as error: message = f'{type(error).__name__}: {error}'\n"
        "print(json.dumps([message, check_plugin().problem, sorted(TRAINER_REGISTRY)]))"
    )
    assert message.startswith(
        "ConfigError: progrpo's trainer for verl can't be loaded: ModuleNotFoundError: import of "
    )
    assert message.endswith(problem)
    assert registered == ["colocate_async", "progrpo", "separate_async", "sync"]


def test_the_command_of_the_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["verl_check"])
    assert verl_check.main() == 0
    assert "verl 0.9.1: trainer.v1.trainer_mode=progrpo is there" in capsys.readouterr().out
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other")
    assert verl_check.main() == 1
    assert "VERL_USE_EXTERNAL_PLUGINS=other leaves progrpo out; unset it, or add progrpo" in capsys.readouterr().out


def test_an_installation_without_the_entry_point_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verl_check, "entry_points", lambda **kwargs: EntryPoints([]))
    problem = verl_check.check_plugin().problem
    assert problem is not None
    assert "has no entry point in verl.plugins; install it again" in problem


def test_workers_without_the_plugin_or_with_another_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    class Worker:
        def __init__(self) -> None:
            import verl  # noqa: F401

        def ready(self) -> bool:
            return True

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            object_store_memory=80 << 20,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}},
        )
        try:
            actor: Any = ray.remote(Worker)
            good = actor.remote()
            bad = actor.options(runtime_env={"env_vars": {"VERL_USE_EXTERNAL_PLUGINS": "none"}}).remote()
            ray.get([good.ready.remote(), bad.ready.remote()])
            verl_check.check_workers([good])
            with pytest.raises(ConfigError, match=r"not loaded on \S+ \(pid \d+\): VERL_USE_EXTERNAL_PLUGINS=none"):
                verl_check.check_workers([good, bad])
            (state,) = verl_check.check_nodes()
            assert state.problem is None
            monkeypatch.setattr(verl_check, "version", lambda name: "9.9")
            with pytest.raises(ConfigError, match=r"progrpo is \S+ on \S+ and 9\.9 in the driver; install the same"):
                verl_check.check_workers([good])
        finally:
            ray.shutdown()


def composed(*overrides: str) -> Any:
    """verl's configuration, as its command line makes it."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=["algorithm.adv_estimator=grpo", *overrides])


def test_options_come_from_verls_configuration() -> None:
    from progrpo.methods.arm import ArmOptions
    from progrpo.verl.trainer import read_options

    options = [f"+algorithm.progrpo.{option}" for option in ("alpha=0", "low_prob_fraction=0.5", "center=correct")]
    several = ["actor_rollout_ref.rollout.n=8"]
    assert read_options(composed(*several, *options)) == ArmOptions(0, 0.5, "any_correct", "correct")
    assert read_options(composed(*several)) == ArmOptions()
    correct = [f"+algorithm.progrpo.{option}" for option in ("correct_above=-5", "correct_reward=acc")]
    assert read_options(composed(*several, *correct)) == ArmOptions(correct_above=-5, correct_reward="acc")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+algorithm.progrpo.alhpa=1", r"algorithm\.progrpo has no option 'alhpa'; it takes alpha, low_prob_fraction"),
        ("+algorithm.progrpo.alpha=-1", r"algorithm\.progrpo\.alpha must be a number in \[0\.0, inf\), got -1"),
        ("+algorithm.progrpo=1", r"takes options by name, such as \+algorithm\.progrpo\.alpha=1\.0, got 1"),
        ("algorithm.adv_estimator=rloo", r"adv_estimator must be grpo .* got rloo; Dr\. GRPO is grpo with"),
        ("algorithm.adv_estimator=gae", r"adv_estimator must be grpo"),
        ("critic.enable=True", r"critic\.enable must be False"),
        ("algorithm.rollout_correction.bypass_mode=True", r"bypass_mode must be False: it skips the actor's forward"),
        ("actor_rollout_ref.rollout.n=1", r"rollout\.n must be at least 2, got 1"),
    ],
)
def test_settings_that_rule_progrpo_out_are_refused_in_one_sentence(override: str, sentence: str) -> None:
    """verl's task runner makes the trainer so, before it starts workers or reads data."""
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    trainer = get_trainer_cls("progrpo")
    with pytest.raises(ConfigError, match=sentence):
        trainer(composed("actor_rollout_ref.rollout.n=8", override))


def test_prompts_with_images_have_no_likelihood() -> None:
    from datasets import Dataset

    from progrpo.methods.arm import ArmOptions
    from progrpo.verl.trainer import refuse_media

    text, images = Dataset.from_list([{"prompt": "a"}]), Dataset.from_list([{"prompt": "a", "pictures": ["b"]}])
    config = composed("data.image_key=pictures")
    refuse_media(ArmOptions(), config, text)
    refuse_media(ArmOptions(center="group"), config, images)
    with pytest.raises(ConfigError, match=r"algorithm\.progrpo\.center=prompt needs .* one with pictures; use center="):
        refuse_media(ArmOptions(), config, images)


def test_the_doctor_checks_the_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    from progrpo.cli.doctor import doctor

    doctor()
    assert "verl's plugin: trainer.v1.trainer_mode=progrpo is there" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["absent", "padded", "responses only", "zeros"])
def test_log_probs_of_less_than_the_whole_sequence_are_refused(missing: str) -> None:
    import torch
    from tensordict import TensorDict
    from transfer_queue import KVBatchMeta

    from progrpo.verl.trainer import whole_sequences

    def rows(*lengths: int, value: float = -1.0) -> torch.Tensor:
        return torch.nested.nested_tensor([torch.full((n,), value) for n in lengths], layout=torch.jagged)

    batch = KVBatchMeta(keys=["a_0_0", "a_1_0"], tags=[{"seq_len": 5}, {"seq_len": 4}], partition_id="train")
    mask = rows(2, 2, value=1.0)
    fields = {
        "absent": {},
        "padded": {"log_probs": torch.full((2, 5), -1.0)},
        "responses only": {"log_probs": rows(2, 2)},
        "zeros": {"log_probs": rows(5, 4, value=0.0)},
    }[missing]
    whole_sequences(TensorDict({"response_mask": mask, "log_probs": rows(5, 4)}, batch_size=2), batch)
    with pytest.raises(ConfigError, match=r"returned no log-probs of the prompts' tokens, .*strategy=fsdp2"):
        whole_sequences(TensorDict({"response_mask": mask, **fields}, batch_size=2), batch)
