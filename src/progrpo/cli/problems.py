"""``progrpo problems``"""

from typer import Option

from progrpo.cli.options import OVERRIDES, RECIPE, SKIP_BAD_ROWS, with_skip_bad_rows


def problems(
    recipe: str = RECIPE,
    overrides: list[str] | None = OVERRIDES,
    show: int = Option(1, min=0, help="How many prompts of each set to print in full."),
    skip_bad_rows: bool = SKIP_BAD_ROWS,
) -> None:
    """Show a recipe's problems as the model will see them: how many there are, prompts, golds, rows left out.

    **Examples**

    - `progrpo problems smollm2_word_problems_cpu --show 3`
    - `progrpo problems my.toml task.template=base --skip-bad-rows`
    """
    from progrpo.recipes.build import make_task
    from progrpo.recipes.schema import load_recipe
    from progrpo.tasks.dataset import DatasetTask
    from progrpo.tasks.templates import prompt_text

    task = make_task(load_recipe(recipe, with_skip_bad_rows(overrides, skip_bad_rows)))
    train, heldout = task.train_problems(), task.heldout_problems()
    print(f"{task.name}: {len(train)} problems to train on, {len(heldout)} held out; verifier {task.verifier}")
    if isinstance(task, DatasetTask):
        print(f"{task.repeated_rows} rows repeat a problem and are left out; {len(task.bad_rows)} rows are bad")
        for row in task.bad_rows:
            print(f"  {row}")
    for name, problem_set in (("train", train), ("held out", heldout)):
        for problem in problem_set[:show]:
            print(f"\n--- {name} {problem['problem_id']}\n{prompt_text(problem['prompt'])}")
            print(f"--- gold\n{task.gold(problem)}")
