"""``progrpo problems``"""

from typing import Annotated

import typer

from progrpo.cli.train import OverridesArgument, RecipeArgument, SkipBadRowsOption, overrides_with
from progrpo.recipes.schema import load_recipe


def problems(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    show: Annotated[int, typer.Option(min=0, help="How many prompts to print in full, from either set.")] = 1,
    skip_bad_rows: SkipBadRowsOption = False,
) -> None:
    """Show a recipe's problems as the model will see them: how many there are, prompts, golds, rows left out.

    **Examples**

    `progrpo problems smollm2_word_problems_cpu --show 3`

    `progrpo problems my.toml task.template=base --skip-bad-rows`
    """
    loaded = load_recipe(recipe, overrides_with(overrides, skip_bad_rows))
    from progrpo.recipes.build import make_task
    from progrpo.tasks.dataset import DatasetTask
    from progrpo.tasks.templates import prompt_text

    task = make_task(loaded)
    train, heldout = task.train_problems(), task.heldout_problems()
    print(f"{task.name}: {len(train)} problems to train on, {len(heldout)} held out; verifier {task.verifier}")
    if isinstance(task, DatasetTask):
        print(f"{task.repeated_rows} rows repeat a problem and are left out; {len(task.bad_rows)} rows are bad")
        for row in task.bad_rows:
            print(f"  {row}")
    for name, some in (("train", train), ("held out", heldout)):
        for problem in some[:show]:
            print(f"\n--- {name} {problem['problem_id']}\n{prompt_text(problem['prompt'])}")
            print(f"--- gold\n{task.gold(problem)}")
