"""Errors that the user can mend.

Anything wrong with input, files or options is a `UserError`: its message says what is wrong, where, and what to do.
Command lines print it on one line and exit with code 2.
"""


class UserError(Exception):
    """An error that the user can mend; the message is one line that names the place and the remedy."""


class BadMask(UserError):
    """A mask file or array that does not hold object ids."""


class BadVideo(UserError):
    """A video, a folder of frames or a frame that cannot be read."""


class DamagedVideo(BadVideo):
    """A video file that is damaged or cut short; ``accept_damaged`` uses the frames that can be decoded."""


class BadDataset(UserError):
    """A data set folder that lacks what its protocol needs."""


class BadResults(UserError):
    """A results folder that lacks frames or does not fit the data set."""


class BadWeights(UserError):
    """A weights file that is missing, unsafe, damaged, or made for another network."""


class MissingExtra(UserError):
    """An optional dependency is not installed; the message holds the install command."""
