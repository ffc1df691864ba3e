"""Our verifiers judge the responses of a file, and their verdicts replace its rewards."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.tiny import tiny_qwen2, trl_template

from progrpo.common.errors import ConfigError
from progrpo.inspection import Options, inspect
from progrpo.tasks.rewards import verified_reward

CUT_OFF = r"Maybe \boxed{5}? Wait, that can't be right"
RESPONSES = [CUT_OFF, "2 and 3.</think> The answer is 5.", "Hm.</think> So 6.", r"Hm.</think> It is \boxed{5.0}."]


def verl_rows(prompt: Any, responses: list[str] = RESPONSES) -> list[dict[str, Any]]:
    """Rows as verl dumps them: the rewards of another reward function, and the golds."""
    return [{"input": prompt, "output": text, "gts": "5", "score": 0.25, "step": 1} for text in responses]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "1.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def rewards(file: Path, **options: Any) -> list[float]:
    return inspect([file], Options(columns={"gold": "gts"}, **options)).table.rewards_B.tolist()


@pytest.mark.parametrize(
    ("prompt", "options", "expected"),
    [
        ("user\n2 + 3?\nassistant\n<think>\n", {"verify": "math"}, [0, 0, 0, 1]),
        ("user\n2 + 3?\nassistant\n<think>\n", {"verify": "math_any"}, [0, 1, 0, 1]),
        ("user\n2 + 3?\nassistant\n", {"verify": "math_any"}, [1, 1, 0, 1]),
        ([{"role": "user", "content": "2 + 3?"}], {"verify": "math_any"}, [1, 1, 0, 1]),
        ([{"role": "user", "content": "2 + 3?"}], {"verify": "math_any", "opens_thinking": True}, [0, 1, 0, 1]),
    ],
)
def test_verdicts_take_the_place_of_rewards(prompt: Any, options: Any, expected: list[float], tmp_path: Path) -> None:
    assert rewards(write(tmp_path, verl_rows(prompt)), **options) == expected


def test_the_template_of_the_model_says_whether_messages_open_a_thinking_part(tmp_path: Path) -> None:
    file = write(tmp_path, verl_rows([{"role": "user", "content": "2 + 3?"}]))
    model = tiny_qwen2(tmp_path / "model", template=trl_template("deepseek_r1_distill"))
    assert rewards(file, verify="math_any", model=str(model)) == [0, 1, 0, 1]


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


@pytest.mark.parametrize("opens_thinking", [False, True])
@pytest.mark.parametrize(
    ("response", "with_thinking_open", "expected"),
    [
        ([assistant("", reasoning_content=r"is it \boxed{5}?")], 0, 0),
        ([assistant(r"\boxed{5}", reasoning_content="is it 6?")], 1, 1),
        ([assistant("hm"), {"role": "tool", "content": r"\boxed{5}"}, assistant("no idea")], 0, 0),
        ([assistant(r"\boxed{6}"), {"role": "user", "content": "Sure?"}, assistant(r"No: \boxed{5}")], 0, 1),
        ([assistant([{"type": "text", "text": r"Hm.</think> \boxed{5}"}])], 1, 1),
        ([assistant(r"\boxed{5}")], 0, 1),
        (r"\boxed{5}", 0, 1),
    ],
    ids=["cut off", "reasoning apart", "tool", "turns", "parts", "message", "text"],
)
def test_responses_are_graded_as_in_training(
    response: Any, with_thinking_open: float, expected: float, opens_thinking: bool, tmp_path: Path
) -> None:
    prompt = [{"role": "user", "content": "2 + 3?"}]
    expected = with_thinking_open if opens_thinking else expected
    reward = verified_reward("math", gold="gts", opens_thinking=opens_thinking)
    assert reward([prompt], [response], gts=["5"]) == [expected]
    file = write(tmp_path, verl_rows(prompt, [response]))
    assert rewards(file, verify="math", opens_thinking=opens_thinking) == [expected]


def test_a_response_may_be_a_single_message_or_missing(tmp_path: Path) -> None:
    file = write(tmp_path, verl_rows("2 + 3?", [assistant(r"\boxed{5}"), None, []]))  # type: ignore[list-item]
    assert rewards(file, verify="math") == [1, 0, 0]


@pytest.mark.parametrize("missing", [None, math.nan, " "])
def test_a_response_without_a_gold_is_not_judged(missing: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"q": "2 + 3?", "o": text, "g": gold} for text, gold in (("5", "5"), ("", missing), ("nan", missing))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inspection = inspect([file], Options(columns={"prompt": "q", "response": "o", "gold": "g"}, verify="exact"))
    assert inspection.table.judged_B.tolist() == [True, False, False]
    assert any("failed on 2 responses: the gold is null" in note for note in inspection.notes)


def test_a_whole_number_as_a_gold_has_no_decimal_point(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pd.DataFrame([{"q": "20 + 7?", "o": "27", "g": gold} for gold in (27, None)]).to_parquet(file)
    options = Options(columns={"prompt": "q", "response": "o", "gold": "g"}, verify="exact")
    np.testing.assert_array_equal(inspect([file], options).table.rewards_B, [1, math.nan])


def test_the_verifier_tells_solutions_apart(tmp_path: Path) -> None:
    inspection = inspect(
        [write(tmp_path, verl_rows("2 + 3?", ["It is 5.", "So 5.0.", "6"]))],
        Options(columns={"gold": "gts"}, verify="math_any"),
    )
    assert inspection.collapse.overall["distinct_solutions"] == 1


def test_golds_may_have_any_type_and_failures_are_counted(tmp_path: Path) -> None:
    rows = [{"q": "2 + 3?", "o": "It is 5.", "g": gold} for gold in ("5", r"\frac{")]
    file = tmp_path / "rows.parquet"
    pd.DataFrame(rows).to_parquet(file)
    columns = {"prompt": "q", "response": "o", "gold": "g"}
    inspection = inspect([file], Options(columns=columns, verify="math_any"))
    assert inspection.table.judged_B.tolist() == [True, False]
    assert [
        note for note in inspection.notes if note.startswith("The verifier 'math_any' failed on 1 responses: the gold")
    ]
    pd.DataFrame([{"q": "2 + 3?", "o": "It is 5.", "g": 5}]).to_parquet(file)
    assert inspect([file], Options(columns=columns, verify="math_any")).table.rewards_B.tolist() == [1]
    pd.DataFrame(rows[1:]).to_parquet(file)
    with pytest.raises(ConfigError, match=r"no response could be judged\. The verifier 'math_any' failed on 1"):
        inspect([file], Options(columns=columns, verify="math_any"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify": "math"}, "--verify NAME and --gold COL go together"),
        ({"columns": {"gold": "gts"}}, "--verify NAME and --gold COL go together"),
        ({"columns": {"gold": "gts"}, "verify": "math", "rewards": "score"}, "--verify replaces --reward"),
        ({"columns": {"gold": "gts"}, "verify": "maths"}, "--verify must be one of math, math_answer"),
        ({"columns": {"gold": "answer"}, "verify": "math"}, "--gold 'answer' is not a column of the file"),
        ({"opens_thinking": True}, "--opens-thinking says how --verify reads responses"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write(tmp_path, verl_rows("2 + 3?"))
    with pytest.raises(ConfigError, match=message):
        inspect([file], Options(**options))
