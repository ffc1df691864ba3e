"""``progrpo train --dry-run``: a plan on the terminal."""

from typing import TYPE_CHECKING

from progrpo.launch.plan import Plan
from progrpo.recipes.schema import Recipe
from progrpo.runs.folder import RunFolder

if TYPE_CHECKING:
    from rich.table import Table

SPREAD = {
    "NO": "one process",
    "MULTI_GPU": "DDP: all of the model on each",
    "FSDP": "FSDP2: weights, gradients and optimiser spread over all",
    "DEEPSPEED": "DeepSpeed ZeRO-3: weights, gradients and optimiser spread over all",
}
WHAT = {
    "process": "interpreter and libraries",
    "weights": "",
    "optimizer": "AdamW's states",
    "vllm": "vLLM's weights and KV cache",
    "kv_cache": "KV cache of transformers",
    "sampling": "logits, the prompts' pass",
    "gradients": "",
    "activations": "kept for the backward pass",
    "logits": "and the LM head's gradient",
    "heap": "freed, and kept by glibc",
    "saved": "states as they are written",
    "gathered": "weights in use: layers, LM head",
}


def dry_run(recipe: Recipe, source: str, overrides: list[str], folder: RunFolder) -> None:
    """Print what a run would be; nothing is loaded, written or launched."""
    from progrpo.launch.plan import make_plan

    show(make_plan(recipe, source, overrides, folder))


def show(plan: Plan) -> None:
    """The plan as tables, then its commands, each on a line of its own that a shell takes."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"\n[bold]{plan.recipe.run_name}[/bold], trained by {plan.recipe.engine}")
    console.print(_facts(plan))
    where = f"on each of {plan.processes} GPUs" if plan.gpu else "of this machine"
    console.print(f"\n[bold]Memory {where}[/bold], GB, at the most (an estimate; docs/scale.md says from what)")
    console.print(_memory(plan))
    for command in plan.commands:
        console.print(f"\n[bold]To launch[/bold] ({command.purpose}):")
        print(command)
    for warning in plan.warnings:
        console.print(f"\n[bold red]Warning:[/bold red] {warning}", soft_wrap=True)


def _facts(plan: Plan) -> "Table":
    from rich.table import Table

    recipe, training, model = plan.recipe, plan.recipe.training, plan.recipe.model
    total, trained = plan.architecture.parameters, plan.trained
    which = f"LoRA of rank {model.lora.r}: {trained:,} trained" if model.lora else "all trained"
    machine = f"{recipe.launch.nodes} x {recipe.launch.gpus_per_node} GPUs" if plan.gpu else "no GPU"
    served = f", {recipe.launch.server_gpus} of them vLLM's" if recipe.launch.server_gpus else ""
    updates = f"{training.updates_per_rollout} updates x " if training.updates_per_rollout > 1 else ""
    rows = {
        "model": f"{model.path}: {plan.architecture.kind}, {plan.architecture.layers} layers, {total:,} parameters, "
        f"{which}; {model.dtype}",
        "machines": f"{machine}{served}; {SPREAD.get(plan.sharding, plan.sharding)}",
        "step": f"{training.prompts_per_step} prompts x {training.group_size} = {plan.responses:,} responses = "
        f"{updates}{plan.processes} processes x {plan.accumulation} passes x {plan.micro_batch}"
        f"{'' if updates else '; one update'}",
        "tokens": f"prompts up to {plan.lengths.prompt:,}, responses up to {plan.lengths.response:,}: up to "
        f"{plan.tokens_a_rollout:,} a {'rollout' if updates else 'step'}",
        "updates": f"{training.steps:,}, {plan.rollouts * plan.responses:,} responses in all; a checkpoint every "
        f"{training.checkpoint_every}, the last {training.keep_checkpoints} kept",
        "method": ", ".join([recipe.method, *(f"{name} {value}" for name, value in recipe.method_settings().items())]),
        "evaluation": _evaluation(recipe),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows.items():
        table.add_row(f"[bold]{name}[/bold]", text)
    return table


def _evaluation(recipe: Recipe) -> str:
    section = recipe.evaluation
    during = f"every {section.every} steps {section.samples_in_training}" if section.every else "none in training"
    then = f"; then progrpo evaluate on {', '.join(section.benchmarks)}" if section.benchmarks else ""
    return f"held-out problems: {during}, {section.samples} samples a problem at the end{then}"


def _memory(plan: Plan) -> "Table":
    from rich.table import Table

    memory, moments = plan.memory, list(plan.memory.moments)
    table = Table("", *moments, "", box=None, pad_edge=False)
    for part, what in WHAT.items():
        held = [memory.always.get(part, 0.0) + memory.moments[moment].get(part, 0.0) for moment in moments]
        if any(held):
            table.add_row(part, *(f"{size / 1e9:.2f}" if size else "" for size in held), f"[dim]{what}[/dim]")
    totals = (f"[bold]{memory.at(moment) / 1e9:.2f}[/bold]" for moment in moments)
    limit = f"of {plan.memory_limit / 1e9:.0f} GB"
    table.add_row("[bold]together[/bold]", *totals, limit)
    for column in table.columns[1:-1]:
        column.justify = "right"
    return table
