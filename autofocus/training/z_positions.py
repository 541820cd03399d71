"""z of the planes of a stack, from what their file names say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from re import Pattern

from autofocus.errors import DataError

# A position such as z-10, z+3 or z3.5um that does not go on as a word or a number.
DEFAULT_Z_PATTERN = r"(?:^|[^a-z])z([+-]?\d+(?:\.\d+)?)(?:um|µm|μm)?(?![a-z0-9])"

_NUMBER = re.compile(r"\d+")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which 2 comes before 10."""
    parts = re.split(r"(\d+)", text.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def compile_z_pattern(text: str) -> Pattern[str]:
    """Regular expression whose only group is z in um.

    Raises
    ------
    DataError
        When it is not a regular expression with one group.
    """
    try:
        pattern = re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise DataError(f"--z-pattern {text!r} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise DataError(
            f"--z-pattern {text!r} has {pattern.groups} groups; put one pair of parentheses "
            r"around the number, as in 'z([+-]?\d+)'"
        )
    return pattern


def z_by_pattern(stems: Sequence[str], pattern: str | None = None) -> tuple[float, ...] | None:
    """Positions that names state, um; None when not all state one, or two state the same.

    Parameters
    ----------
    stems : sequence of str
        File names without extension.
    pattern : str, optional
        As `compile_z_pattern`; the last match in a name counts. Without it `DEFAULT_Z_PATTERN`,
        and numbers padded with zeros (``z007``) are not positions: they only count planes.
    """
    compiled = compile_z_pattern(DEFAULT_Z_PATTERN if pattern is None else pattern)
    found = [compiled.findall(stem) for stem in stems]
    if not all(found):
        return None
    texts = [matches[-1] for matches in found]
    if pattern is None and any(re.match(r"0\d", text) for text in texts):
        return None
    try:
        z_um = tuple(map(float, texts))
    except ValueError as error:
        raise DataError(
            f"--z-pattern {pattern!r} finds {texts[0]!r} in {stems[0]}: {error}"
        ) from error
    return z_um if len(set(z_um)) == len(z_um) else None


def varying_number(stems: Sequence[str]) -> tuple[int, ...] | None:
    """The one number in which the names differ; None when they differ in more, or in less."""
    if len({_NUMBER.sub("0", stem) for stem in stems}) != 1:
        return None
    columns = zip(*(map(int, _NUMBER.findall(stem)) for stem in stems), strict=True)
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1 or len(set(varying[0])) < len(stems):
        return None
    return varying[0]
