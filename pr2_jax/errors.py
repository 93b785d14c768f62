"""The one error that a person is meant to read."""


class Pr2Error(Exception):
    """Something the caller can mend: one clear line, and `pr2` leaves with exit status 2.

    The message says where (file, row, column), what was found and what was expected or how to mend it.
    Anything else that is raised is a defect of ours and shows its traceback.
    """


class BadInput(Pr2Error):
    """A log, a request file or an array that cannot be used as it is."""


class BadConfig(Pr2Error):
    """An unknown key, a wrong type, or fields that clash."""


class StaleArtifact(Pr2Error):
    """Something on disk was made by another schema, config or input."""


class Stopped(Pr2Error):
    """A SIGTERM while training; what was done is saved, and `pr2` leaves with exit status 143."""


class NotFinite(Pr2Error, FloatingPointError):
    """A loss that is not a number."""
