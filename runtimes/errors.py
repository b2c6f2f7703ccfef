"""What can go wrong below the gateway, as one small family; it knows no HTTP.

Why: the gateway maps kinds to status codes in one table; runtimes only say what happened.
Errors: a message says what was attempted, what was found and what would be accepted, in one sentence.
"""


class RuntimeFault(Exception):
    """Base of every fault a runtime reports; `str(fault)` is one sentence for a person."""


class InvalidInput(RuntimeFault):
    """The caller's tensors do not fit the model's signature."""


class ModelFailed(RuntimeFault):
    """The session raised while it ran this item."""


class DeadlineExceeded(RuntimeFault):
    """The item's deadline passed before its answer was there."""


class QueueWaitExceeded(RuntimeFault):
    """The item waited longer for an instance than the deployment allows."""


class Overloaded(RuntimeFault):
    """No room in the queue; `retry_after_s` says when there may be some again, as far as is known."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLate(Overloaded):
    """By what is known of the model, the item's answer cannot be there before its deadline, so it is not run."""


class Unavailable(RuntimeFault):
    """The runtime is draining or closed."""


class LoadFailed(RuntimeFault):
    """The model could not be made ready: a missing or corrupt file, no such device, a bad setting."""
