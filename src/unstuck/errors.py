"""The errors `unstuck` raises: each is an `UnstuckError` and the built-in it stands for."""


class UnstuckError(Exception):
    """Base of every error a user can cause; on the command line it is one line on stderr and exit code 2."""

    @property
    def says(self) -> str:
        """The message; made by `say` it remembers what of, so that the command line can say it in another language."""
        return self.args[0] if self.args else ""


class MisuseError(UnstuckError, ValueError):
    """An argument or option that can't be used as given."""


class NotFoundError(UnstuckError, LookupError):
    """A name that nothing is registered under."""


class RecordError(UnstuckError, OSError):
    """A record that can't be read or written."""


class ScriptError(UnstuckError, ValueError):
    """A script that can't be started: missing, a folder, or not a Python program."""


class MissingError(UnstuckError, ImportError):
    """A package that is needed for what was asked, and isn't installed."""


class ClusterError(UnstuckError, RuntimeError):
    """A cluster that can't be reached, or whose machines can't make what they are asked for."""


class NotFiniteError(UnstuckError, ArithmeticError):
    """A loss, a gradient or a product that isn't a finite number, where one is needed."""


class SickError(UnstuckError, RuntimeError):
    """A training in which something was found that is as severe as it was asked to fail on."""
