"""What becomes of the validation samples that verl drew."""

from progrpo.recipes.build import make_task
from progrpo.recipes.schema import load_recipe
from progrpo.verl.run import _evaluation


def test_a_validation_sample_that_was_cut_off_while_thinking_has_no_vote() -> None:
    changes = ["engine=verl", "model.path=countdown", "task.answer_style=any", "evaluation.samples_in_training=2"]
    recipe = load_recipe("smollm2_word_problems_cpu", changes)
    task = make_task(recipe)
    problem = task.heldout_problems()[0]
    judged = {"score": 0.0, "verifier_error": 0.0, "reason": "no", "canonical": "", "problem_id": problem["problem_id"]}
    samples = [
        judged | {"input": "user\n1 + 1?\nassistant\n<think>\n", "output": r"Maybe \boxed{-7}? Wait"},
        judged | {"input": "user\n1 + 1?\nassistant\n<think>\n", "output": r"Hm.</think> \boxed{-7}"},
    ]
    [found] = _evaluation(recipe, task, [problem], samples).problems
    assert (found.wrong_votes, found.no_answer) == ([1], 1)
