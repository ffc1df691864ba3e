"""Verifying mathematics: next to TRL's ``accuracy_reward``, with answers that run out of time, and a million times.

Examples:
    python benchmarks/math_verification.py                    # 10,000 answers, both verifiers in turns
    python benchmarks/math_verification.py --unforeseen       # 5,000 answers, with 50 blow-ups that pass the size check
    python benchmarks/math_verification.py --leak 1000000     # memory and processes, before and after

The answers are generated, so it is known which are right: 80 % are plain numbers and words, 20 % are LaTeX, 0.1 % are
blow-ups, and half of the others are wrong. Golds are boxed for both verifiers, because TRL reads bare golds differently
(docs/verify-math.md).
"""

import argparse
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from record import record

BLOCK = 500
GROUP = 16
"""The number of answers to each problem with ``--leak``, as in training; in the comparison, each problem has one."""
BLOW_UPS = (
    "9^{9^{9^{%d}}}",
    "10^{8%d}!",
    "(x+y+z+w+%d)^{60}",
    r"\{" + ",".join(map(str, range(300))) + r",%d\}",
    r"\binom{100000000}{5000000%d}",
)


class Item(NamedTuple):
    kind: str
    gold: str
    answer: str
    is_right: bool | None  # None: the verdict does not matter, only the time


def make_items(number: int, seed: int, blow_ups: float = 0.001, group: int = 1) -> list[Item]:
    """This number of answers, ``group`` of them to each problem."""
    answers = random.Random(seed)
    items = []
    for i in range(number):
        problem = i // group
        rng = random.Random(f"{seed} {problem}")  # the same problem for its whole group
        if i % 1000 < blow_ups * 1000:
            items.append(_blow_up(answers))
        else:
            items.append(_latex(rng, answers) if problem % 5 == 1 else _plain(rng, answers))
    return items


def _plain(rng: random.Random, answers: random.Random) -> Item:
    n, m, is_right = rng.randint(2, 10**6), rng.randint(3, 97), answers.random() < 0.5
    other = n if is_right else n + answers.randint(1, 9)
    match rng.randrange(5):
        case 0 | 1:
            return Item("integer", str(n), str(other), is_right)
        case 2:
            return Item("thousands", str(1000 + n), f"{1000 + other:,}", is_right)
        case 3:
            return Item("decimal", f"{n / 100:.2f}", f"{other / 100:.2f}", is_right)
        case _:
            return Item("fraction", f"{n}/{m}", rf"\frac{{{other}}}{{{m}}}", is_right)


def _latex(rng: random.Random, answers: random.Random) -> Item:
    a, b, is_right = rng.randint(2, 999), rng.randint(2, 999), answers.random() < 0.5
    c = b if is_right else b + answers.randint(1, 9)
    match rng.randrange(6):
        case 0:
            return Item("root", rf"{a}\sqrt{{{4 * b}}}", rf"{2 * a}\sqrt{{{c}}}", is_right)
        case 1:
            return Item("sum", f"x^2+{a}x+{b}", f"{c}+{a}x+x^2", is_right)
        case 2:
            return Item("product", f"(x+{a})(x+{b})", f"x^2+{a + c}x+{a * c}", is_right)
        case 3:
            return Item("interval", rf"(-{a},{b}]", rf"(-{a}, {c}]", is_right)
        case 4:
            return Item("power", f"{a}^{{3}}+{b}", f"{a**3 + c}", is_right)
        case _:
            return Item("multiple of pi", rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{2 * a}}}{{{2 * c}}}\pi", is_right)


def _blow_up(rng: random.Random) -> Item:
    return Item("blow-up", "x+1", rng.choice(BLOW_UPS) % rng.randint(2, 9), None)


def responses(items: list[Item]) -> tuple[list[str], list[str]]:
    return [rf"So it is \boxed{{{item.answer}}}." for item in items], [rf"\boxed{{{item.gold}}}" for item in items]


def ours(items: list[Item]) -> list[bool]:
    from progrpo.verify import verify_math_batch

    return [verdict.correct for verdict in verify_math_batch(*responses(items))]


def theirs(items: list[Item]) -> list[bool]:
    from trl.rewards import accuracy_reward

    answers, golds = responses(items)
    return [
        reward == 1.0 for reward in accuracy_reward([[{"role": "assistant", "content": a}] for a in answers], golds)
    ]


def against_trl(number: int) -> dict[str, object]:
    items = make_items(number, seed=0)
    ours(make_items(20, seed=1)), theirs(make_items(20, seed=1, blow_ups=0))  # both load all they need
    took: dict[str, list[float]] = {"ours": [], "theirs": []}
    differences: Counter[str] = Counter()
    shown: list[str] = []
    wrong = Counter[str]()
    for start in range(0, number, BLOCK):
        block = items[start : start + BLOCK]
        verdicts = {}
        for name, verify in (("ours", ours), ("theirs", theirs))[:: 1 if start // BLOCK % 2 else -1]:
            began = time.perf_counter()
            verdicts[name] = verify(block)
            took[name].append(time.perf_counter() - began)
        for item, a, b in zip(block, verdicts["ours"], verdicts["theirs"], strict=True):
            wrong["ours"] += item.is_right is not None and a != item.is_right
            wrong["theirs"] += item.is_right is not None and b != item.is_right
            if a != b:
                differences[f"{item.kind}: {'ours' if a == item.is_right else 'theirs'} is right"] += 1
                shown.append(f"{item.kind}: gold {item.gold}, answer {item.answer}: ours {a}, theirs {b}")
        print(f"{start + len(block)}/{number}  {sum(took['ours']):.1f} s  {sum(took['theirs']):.1f} s", flush=True)
    return {
        "answers": number,
        "ours, a second": round(number / sum(took["ours"])),
        "theirs, a second": round(number / sum(took["theirs"])),
        "times TRL's accuracy_reward": round(sum(took["theirs"]) / sum(took["ours"]), 2),
        "the least of the blocks": round(min(b / a for a, b in zip(took["ours"], took["theirs"], strict=True)), 2),
        "verdicts against the truth": dict(wrong),
        "differences": dict(differences),
        "some of them": shown[:10],
    }


def unforeseen(number: int = 5000, blown: int = 50) -> dict[str, object]:
    from progrpo.verify.math import answer as math_answer

    items = make_items(number, seed=2, blow_ups=0)
    ours(items[:50])
    math_answer._cached.clear()
    began = time.perf_counter()
    before = ours(items)
    base = time.perf_counter() - began
    for k in range(blown):
        items[k * (number // blown)] = Item("blow-up", "x+1", f"9^{{9^{{9}}}}+{k}x", None)
    math_answer._cached.clear()
    with mock.patch("progrpo.verify.math.answer.explosion", return_value=""):
        began = time.perf_counter()
        after = ours(items)
        full = time.perf_counter() - began
    changed = [i for i, item in enumerate(items) if item.kind != "blow-up" and before[i] != after[i]]
    return {
        "seconds without them": round(base, 1),
        "seconds more with them": round(full - base, 1),
        "deadlines divided by workers": blown * math_answer.DEADLINE_SECONDS / math_answer.WORKERS,
        "other verdicts that changed": len(changed),
        "of them called right": sum(after[i] for i in range(0, number, number // blown)),
    }


def leak(number: int) -> dict[str, object]:
    from progrpo.verify import verify_math_batch

    ours(make_items(10_000, seed=10**6))
    sizes, wrong = [_resident_mb()], []
    began = time.perf_counter()
    for n in range(number // 10_000):
        items = make_items(10_000, seed=100 + n, group=GROUP)
        verdicts = verify_math_batch(*responses(items))
        judged = zip(items, verdicts, strict=True)
        wrong += [f"{item}: {v}" for item, v in judged if item.is_right is not None and v.correct != item.is_right]
        sizes.append(_resident_mb())
        if n % 10 == 9:
            print(f"{(n + 1) * 10_000}/{number}  {sizes[-1]} MB  {_processes()} processes", flush=True)
    return {
        "verifications": number,
        "a second": round(number / (time.perf_counter() - began)),
        "MB at the start, a tenth, half, the end": [sizes[i] for i in (0, len(sizes) // 10, len(sizes) // 2, -1)],
        "worker processes at the end": _processes(),
        "descriptors at the end": len(os.listdir("/proc/self/fd")),
        "wrong": wrong,
    }


def _resident_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def _processes() -> int:
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000, help="answers for the comparison with TRL")
    parser.add_argument("--unforeseen", action="store_true", help="add answers that use up their deadline")
    parser.add_argument("--leak", type=int, metavar="N", help="verify N answers and watch the memory")
    args = parser.parse_args()
    if args.unforeseen:
        record("math_verification-unforeseen", unforeseen())
    elif args.leak:
        record("math_verification-leak", leak(args.leak))
    else:
        record("math_verification", against_trl(args.answers))


if __name__ == "__main__":
    main()
