"""Refusals: a canonical status code and a text in; the HTTP status and the gRPC code of the answer
out.

TensorFlow Serving words every refusal as one of the sixteen canonical codes and maps them to HTTP
in one table (contract, section 2). Everything below the two front ends raises `StatusError`; only the
front ends translate it.
"""

HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}  # UNKNOWN, INTERNAL, DATA_LOSS and whatever else comes: 500

# The canonical numbers, as TensorFlow's OpError.error_code and tensorflow.error.Code carry them.
CODE_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

TIMED_OUT = "Timed out waiting for notification"


class StatusError(Exception):
    """An answer other than OK. ``text`` may hold bytes that are not UTF-8, as surrogate escapes."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text

    @property
    def http_status(self) -> int:
        return HTTP_STATUS.get(self.code, 500)


def draining() -> StatusError:
    """What is said to requests that come after the server was told to stop."""
    return StatusError("UNAVAILABLE", "The server is shutting down")


def invalid(text: str) -> StatusError:
    """INVALID_ARGUMENT, the most common refusal."""
    return StatusError("INVALID_ARGUMENT", text)


def code_name(number: int) -> str:
    """The name of a canonical code; a number outside the table is UNKNOWN."""
    return CODE_NAMES[number] if 0 <= number < len(CODE_NAMES) else "UNKNOWN"


LONGEST_NAME = 200


def loggable(text: str, most: int = LONGEST_NAME) -> str:
    """A text from outside as logs and metrics show it: on one line, without escape codes, at most
    200 characters.
    """
    text = text[:most]
    return text if text.isprintable() else "".join(map(_shown, text))[:most]


def _shown(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def valid_utf8(text: str) -> str:
    """The text with whatever is not UTF-8 replaced, for logs and gRPC, which carry nothing else."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
