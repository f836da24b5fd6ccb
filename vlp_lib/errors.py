"""The exceptions that a user is meant to read."""


class UserError(Exception):
    """A failure that the user can mend.

    Its text is one sentence that names the file, folder or parameter at fault and says what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """


class UnreadableImageError(UserError):
    """An image file that is missing or broken; training can go on without it, within a share."""
