"""``progrpo benchmarks``"""

from typer import Argument, Option

from progrpo.common.errors import ConfigError

LONGEST_GOLD = 600
"""Characters of a gold that are shown: the tests of a program may be megabytes."""


def benchmarks(
    name: str | None = Argument(None, help="The benchmark to show in full.", show_default=False),
    data: str | None = Option(None, metavar="FILE", help="A local file with its rows; 'hub' loads them from the hub."),
) -> None:
    """List the benchmarks, or show one: what it is, how it is judged and, given its rows, its first problem.

    **Examples**

    - `progrpo benchmarks`
    - `progrpo benchmarks aime24 --data aime24.jsonl`
    - `progrpo benchmarks math500 --data hub`
    """
    from rich.console import Console
    from rich.table import Table

    from progrpo.evaluation.benchmarks import BENCHMARKS, benchmark
    from progrpo.tasks.rows import NotOnHubError
    from progrpo.tasks.templates import prompt_text

    if name is None and data is not None:
        raise ConfigError("--data is for one benchmark: name it, as in progrpo benchmarks aime24 --data aime24.jsonl.")
    if name is None:
        table = Table("name", "problems", "task", "metrics", "source", box=None, pad_edge=False)
        table.columns[0].no_wrap, table.columns[1].justify = True, "right"
        for each, row in BENCHMARKS.items():
            table.add_row(each, f"{row.problems:,}", row.kind.name, ", ".join(row.metrics), row.source)
        Console().print(table)
        return
    shown = benchmark(name)
    print(f"{name}: {shown.about}")
    print(f"  source   {shown.source}")
    print(f"  task     {shown.kind.name}, preset {shown.preset}, verifier {shown.verifier}, template {shown.template}")
    print(f"  samples  {shown.samples} a problem, of at most {shown.max_new_tokens} tokens")
    print(f"  metrics  {', '.join(shown.metrics)}")
    if data is None:
        print(f"Its first problem: progrpo benchmarks {name} --data FILE, or --data hub")
        return
    if not data:
        raise ConfigError("--data must name a file, or be 'hub'; it is empty.")
    task = shown.task(None if data == "hub" else data)
    try:
        problems = task.heldout_problems()
    except NotOnHubError as error:
        raise ConfigError(f"{str(error).rstrip('.')}: --data FILE.") from None
    print(
        f"{len(problems)} problems; {task.repeated_rows} rows repeat a problem; {len(task.bad_rows)} rows can't be used"
    )
    if note := shown.count_note(len(problems)):
        print(note)
    for bad_row in task.bad_rows:
        print(f"  {bad_row}")
    gold = task.gold(problems[0])
    print(f"\n--- first problem\n{prompt_text(problems[0]['prompt'])}")
    print(f"--- gold\n{gold[:LONGEST_GOLD]}{'...' if len(gold) > LONGEST_GOLD else ''}")
