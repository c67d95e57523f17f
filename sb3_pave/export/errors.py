"""What an export is refused with."""


class ExportError(Exception):
    """The policy can't be exported; the message says why."""
