"""StatusError, which every part of the server raises, and names as logs can show them.

TensorFlow Serving gives every refusal one of the canonical status codes and maps them to HTTP
(contract, section 2). Only the REST and gRPC front ends turn a StatusError into an answer.
"""

from tf_groupvit.transport.status_codes import HTTP_STATUS

LONGEST_NAME = 200  # characters of a name in logs and metrics
TIMED_OUT = "Timed out waiting for notification"


class StatusError(Exception):
    """An answer other than OK. ``text`` may hold bytes that are not UTF-8, as surrogate escapes."""

    def __init__(self, code: str, text: str, http_status: int | None = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.http_status = http_status or HTTP_STATUS.get(code, 500)


def draining() -> StatusError:
    """The answer to requests that arrive while the server stops."""
    return StatusError("UNAVAILABLE", "The server is shutting down")


def invalid(text: str) -> StatusError:
    """An error with the code INVALID_ARGUMENT, the most common one."""
    return StatusError("INVALID_ARGUMENT", text)


def loggable(text: str, most: int = LONGEST_NAME) -> str:
    """A text from outside as logs and metrics show it: one line, no control characters, cut."""

    def shown(character: str) -> str:
        if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character if character.isprintable() else character.encode("unicode_escape").decode()

    text = text[:most]
    return text if text.isprintable() else "".join(map(shown, text))[:most]


def valid_utf8(text: str) -> str:
    """The text with whatever is not UTF-8 replaced, as gRPC and metrics must have it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
