"""What a command of the zoo can't do."""


class ZooError(ValueError):
    """A mistake in what a command of the zoo was given; the message says what is allowed."""
