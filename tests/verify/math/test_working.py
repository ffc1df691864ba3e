import pytest

from progrpo.verify.math.working import working


@pytest.mark.parametrize(
    ("response", "equations"),
    [
        ("4 + 3 = 7", "3+4=7"),
        ("3+4=7 and then 4 + 3 = 7 again", "3+4=7"),
        ("4 - 3 = 1", "4-3=1"),
        ("3 × 4 = 12; 12 ÷ 2 = 6", "12/2=6,3*4=12"),
        (r"$3 \cdot 4 = 12$ and $\$12 - \$2 = \$10$", "12-2=10,3*4=12"),
        ("3 x 4 = 12", "3*4=12"),
        ("1,200 + 34 = 1,234", "34+1200=1234"),
        ("1 + 2 + 3 = 6", "1+2+3=6"),
        ("0.5 * 3 = 1.5", "0.5*3=1.5"),
        ("2 * 3 + 1 = 7", "2*3+1=7"),
        ("x = 7, so y = 2x + 1", ""),
        ("the answer is 7", ""),
        ("", ""),
    ],
)
def test_the_working_is_its_equations(response: str, equations: str) -> None:
    assert working(response) == equations


def test_different_workings_have_different_forms() -> None:
    forms = {working(text) for text in ("3 + 4 = 7", "4 - 3 = 1", "3 * 4 = 12", "3 + 4 = 8", "3 - 4 = 1", "2 + 5 = 7")}
    assert len(forms) == 6


def test_a_long_response_is_read_quickly() -> None:
    assert working("1 + " * 200_000) == ""
    assert working("9" * 200_000) == ""
    assert working("1+1=2 " * 50_000) == "1+1=2"
