"""The episodes that verifiers records, and prime-rl with it: message graphs, read as a row for each response.

A line holds an episode with the traces of its agents, or one trace. A trace is a graph of messages: those that the
model sampled hold the tokens that they added, with the log-prob of each. The names are those of verifiers 0.4
(``verifiers.v1.episode.Episode``, ``verifiers.v1.trace.Trace``).
"""

from collections.abc import Callable, Iterator
from itertools import compress, dropwhile, takewhile
from typing import Any

from progrpo.inspection.values import as_key

Record = dict[str, Any]


def is_record(row: Record) -> bool:
    """Whether a line is an episode or a trace."""
    return isinstance(row.get("task"), dict) and isinstance(row.get("traces", row.get("nodes")), list)


def responses(record: Record, note: Callable[[str], None]) -> Iterator[Record]:
    """A row for each trace that the policy sampled: prompt, response, reward, and the step and the tokens if known.

    A trace that was not scored has no reward. Evaluations during training are left out, and so are responses that
    another model than the policy sampled; ``note`` is called with a sentence that says so.
    """
    run = record.get("run") or {}
    work = run.get("work") or run  # a trace has its type and step in `run`, an episode in `run.work`
    if run.get("type") == "train" and work.get("type") == "eval":
        note("Evaluations during training are left out.")
        return
    if "traces" in record and not record["traces"]:
        note("Episodes that failed before a response was sampled are left out.")
    for trace in record.get("traces", [record]):
        agent = trace.get("agent") or {}
        if agent.get("trainable", True) is False:
            note("Responses of agents that are not trained are left out.")
            continue
        yield _row(trace, record, agent.get("name"), work.get("step"))


def _row(trace: Record, record: Record, agent: str | None, step: int | None) -> Record:
    nodes = _last_branch(trace.get("nodes") or [])
    sampled = [node for node in nodes if node.get("sampled")]
    # The responses to one task share the id of the group, else the key, the hash or the data of the task.
    group = (record.get("group") or {}).get("id") or (trace.get("info") or {}).get("group_id")
    task = trace.get("task") or record["task"]
    rewards = {name: reward for name, reward in (trace.get("rewards") or {}).items() if reward is not None}
    scores = [reward["score"] * reward.get("weight", 1.0) for reward in rewards.values()]
    row = {
        "trace": trace.get("id"),
        "group": as_key([agent, group or task.get("key") or task.get("hash") or task.get("data")]),
        "prompt": [node["message"] for node in takewhile(lambda node: not node.get("sampled"), nodes)],
        "response": [node["message"] for node in dropwhile(lambda node: not node.get("sampled"), nodes)],
        "reward": sum(scores) if scores else None,
        "rewards": {name: reward["score"] for name, reward in rewards.items()},
        "metrics": trace.get("metrics"),
        "step": step,
        "token_ids": [
            token for node in sampled for token in compress(node.get("token_ids") or [], node.get("mask") or [])
        ],
        "logps": [logp for node in sampled for logp in node.get("logprobs") or []],
        "entropies": [entropy for node in sampled for entropy in node.get("entropies") or []],
    }
    # A server that is asked for chat messages returns no tokens.
    return {name: value for name, value in row.items() if value not in (None, []) or name in ("prompt", "response")}


def _last_branch(nodes: list[Record]) -> list[Record]:
    """The messages from the first one to the last. Where the history was rewritten, other branches remain."""
    branch: list[Record] = []
    index = len(nodes) - 1 if nodes else None
    while index is not None:
        branch.append(nodes[index])
        parent = nodes[index].get("parent")
        index = parent if parent is not None and 0 <= parent < index else None
    return branch[::-1]
