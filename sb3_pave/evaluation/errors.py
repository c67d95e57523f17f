"""What is wrong with agents on disk."""


class AgentError(Exception):
    """A run that is missing or does not load; the message names it."""


class NoModelError(AgentError):
    """An algorithm none of whose runs has a model."""
