"""What can go wrong, as one exception with a code that a program can read and an advice that a person can follow."""

from __future__ import annotations

from typing import Literal

Code = Literal["malformed_job", "wrong_base", "memory", "nan", "diverged", "unsupported", "cancelled", "internal"]

EXIT_CODES: dict[str, int] = {
    "internal": 1,
    "malformed_job": 2,
    "wrong_base": 3,
    "memory": 4,
    "nan": 5,
    "diverged": 5,
    "unsupported": 6,
    "cancelled": 7,
}


class Fault(Exception):
    """A stop that was foreseen: `code` for programs, `message` what was expected and what came, `change` what to do."""

    def __init__(self, code: Code, message: str, change: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.change = change

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.code]
