"""``progrpo train --dry-run``: a plan on the terminal."""

from rich.console import Console
from rich.table import Table

from progrpo.launch.plan import Plan

SHARDING = {
    "NO": "one process",
    "MULTI_GPU": "DDP: the whole model on each",
    "FSDP": "FSDP2: weights, gradients and optimiser spread over all",
    "DEEPSPEED": "DeepSpeed ZeRO-3: weights, gradients and optimiser spread over all",
}
PARTS = {
    "weights": "",
    "optimizer": "AdamW's states",
    "vllm": "vLLM's weights and KV cache",
    "kv_cache": "KV cache of transformers",
    "sampling": "logits, the prompts' pass",
    "gradients": "",
    "activations": "kept for the backward pass",
    "logits": "and the LM head's gradient",
    "gathered": "weights in use: layers, LM head",
}
"""The parts of the memory, with what they hold where the name does not say it."""


def print_plan(plan: Plan) -> None:
    """The plan as tables, then its commands, each on a line of its own that a shell takes."""
    console = Console(highlight=False)
    console.print(f"\n[bold]{plan.recipe.run_name}[/bold], trained by {plan.recipe.engine}")
    console.print(_facts(plan))
    where = (
        f"on each of {plan.processes} GPUs[/bold], GB, at most (an estimate; docs/scale.md explains it)"
        if plan.gpu
        else "of the tensors on this machine[/bold], GB, at most. Python and its libraries, and freed memory that "
        "the allocator keeps, add a GB or more. The estimate is made for GPUs (docs/scale.md)."
    )
    console.print(f"\n[bold]Memory {where}")
    console.print(_memory(plan))
    for command in plan.commands:
        console.print(f"\n[bold]To launch[/bold] ({command.purpose}):")
        print(command)
    for warning in plan.warnings:
        console.print(f"\n[bold red]Warning:[/bold red] {warning}", soft_wrap=True)


def _facts(plan: Plan) -> Table:
    recipe, training, launch = plan.recipe, plan.recipe.training, plan.recipe.launch
    model, lora = plan.architecture, plan.recipe.model.lora
    trained = f"LoRA of rank {lora.r}: {model.trained_parameters(lora):,} trained" if lora else "all trained"
    machines = f"{launch.nodes} x {launch.gpus_per_node} GPUs" if plan.gpu else "no GPU"
    server = f", {launch.server_gpus} of them vLLM's" if launch.server_gpus else ""
    updates = f"{training.updates_per_rollout} updates x " if training.updates_per_rollout > 1 else ""
    held_out = recipe.evaluation
    every = f"{held_out.samples_in_training} samples a problem every {held_out.every} steps"
    then = f"; then progrpo evaluate on {', '.join(held_out.benchmarks)}" if held_out.benchmarks else ""
    rows = {
        "model": f"{recipe.model.path}: {model.config.model_type}, {model.config.num_hidden_layers} layers, "
        f"{model.parameters:,} parameters, {trained}; {recipe.model.dtype}",
        "machines": f"{machines}{server}; {SHARDING[plan.facts.sharding]}",
        "step": f"{training.prompts_per_step} prompts x {training.group_size} = {plan.responses:,} responses = "
        f"{updates}{plan.processes} processes x {plan.accumulation} passes x {plan.micro_batch}"
        f"{'' if updates else '; one update'}",
        "tokens": f"prompts up to {plan.lengths.prompt:,}, responses up to {plan.lengths.response:,}: up to "
        f"{plan.responses * plan.lengths.total:,} a {'rollout' if updates else 'step'}",
        "updates": f"{training.steps:,}, {plan.rollouts * plan.responses:,} responses in all; a checkpoint every "
        f"{training.checkpoint_every}, the last {training.keep_checkpoints} kept",
        "method": ", ".join([recipe.method, *(f"{name} {value}" for name, value in recipe.method_settings().items())]),
        "evaluation": f"held-out problems: {every if held_out.every else 'none in training'}, "
        f"{held_out.samples} samples a problem at the end{then}",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows.items():
        table.add_row(f"[bold]{name}[/bold]", text)
    return table


def _memory(plan: Plan) -> Table:
    memory, moments = plan.memory, list(plan.memory.moments)
    table = Table("", *moments, "", box=None, pad_edge=False)
    for part, content in PARTS.items():
        sizes = [memory.always.get(part, 0.0) + memory.moments[moment].get(part, 0.0) for moment in moments]
        if any(sizes):
            table.add_row(part, *(f"{size / 1e9:.2f}" if size else "" for size in sizes), f"[dim]{content}[/dim]")
    totals = (f"[bold]{memory.at(moment) / 1e9:.2f}[/bold]" for moment in moments)
    table.add_row("[bold]together[/bold]", *totals, f"of {plan.memory_limit / 1e9:.0f} GB")
    for column in table.columns[1:-1]:
        column.justify = "right"
    return table
