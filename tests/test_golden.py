"""The file of choices says what "auto" chooses today."""

from __future__ import annotations

import golden


def test_the_golden_file_is_up_to_date() -> None:
    machines = golden.compiled()
    assert machines, "none of the file's ISAs is compiled in"
    expected = [
        (head, {machine: names[machine] for machine in machines})
        for head, names in golden.written()
    ]
    choices = golden.choices(machines)
    moved = [
        f"{head}: {was} -> {now}"
        for (head, was), (_, now) in zip(expected, choices, strict=False)
        if was != now
    ]
    hint = "rewrite the file with `python tests/golden.py` and read its diff"
    assert not moved, f"{len(moved)} choices moved, first {moved[0]}; {hint}"
    assert [head for head, _ in expected] == [head for head, _ in choices], hint
