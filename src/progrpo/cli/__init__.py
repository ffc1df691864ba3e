"""The command line: ``progrpo train | evaluate | compare | report | inspect | problems | benchmarks | doctor``.

Each command is a short file. A command imports what it needs when it runs, so that ``--help`` answers at once.
"""

import os
import sys
import warnings

import typer

from progrpo.cli.benchmarks import benchmarks
from progrpo.cli.compare import compare
from progrpo.cli.doctor import doctor
from progrpo.cli.evaluate import evaluate
from progrpo.cli.inspect import inspect
from progrpo.cli.problems import problems
from progrpo.cli.report import report
from progrpo.cli.train import let_first_process_speak, train
from progrpo.common.environment import process_index
from progrpo.common.errors import ConfigError, RunError
from progrpo.common.files import path_fault
from progrpo.verify import VerifierFailedError

FAILURE = 1
USAGE_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="progrpo",
    help="Reinforcement learning with verifiable rewards that keeps exploring (ProGRPO, arXiv 2602.05281).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (train, evaluate, compare, report, inspect, problems, benchmarks, doctor):
    app.command()(command)


def main() -> None:
    """Entry point: bad input gets one sentence and exit code 2, never a traceback."""
    # Deprecations in our dependencies, and each retry of a download, would bury the progress bar and the one sentence.
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        app()
    except KeyboardInterrupt:  # a terminal sends it to all processes at once
        if process_index() == 0:
            print("progrpo: stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `progrpo doctor | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except (ConfigError, RunError, VerifierFailedError, ModuleNotFoundError, OSError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        let_first_process_speak()
        print(f"progrpo: {sentence}", file=sys.stderr)
        sys.exit(USAGE_ERROR if isinstance(error, ConfigError | ModuleNotFoundError) else FAILURE)


def _sentence(error: Exception) -> str | None:
    """The sentence that tells the user what went wrong; None if the error is a bug."""
    if isinstance(error, OSError):
        return path_fault(error)
    if isinstance(error, ModuleNotFoundError):  # an extra that was not installed
        missing = error.name or "progrpo"
        is_bug = missing.partition(".")[0] == "progrpo"
        return None if is_bug else f"this needs {missing!r}; pip install 'progrpo[all]', or see progrpo doctor."
    return str(error)
