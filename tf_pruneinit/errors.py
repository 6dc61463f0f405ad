"""The one exception that means: the user can mend this, and one line says how."""


class UsageError(ValueError):
    """Raised at a boundary for a value that breaks a rule: the message names the rule, then what was received.

    Command lines print it on one line and exit with code 2; from Python it is a `ValueError`.
    """
