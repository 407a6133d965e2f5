"""The one error type that means "the input was wrong", as opposed to a bug."""


class InputError(ValueError):
    """Raised for input that a person can correct.

    The message says in one or two lines what was wrong, what was expected and what to do. Command
    lines print it and exit with code 2; library callers see an ordinary `ValueError`.
    """
