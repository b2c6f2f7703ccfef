"""The inference server's log formatter, under the name that a script's logging.json may give it."""

from ..logs import AMLLogFormatter

__all__ = ["AMLLogFormatter"]
