"""The canonical status codes of gRPC and their HTTP statuses, for the client and the server."""

# The canonical status codes in the order of their numbers (google/rpc/code.proto), and the HTTP
# status that TensorFlow Serving gives each; all others are 500.
CODES = """
OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS
PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED
INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED
""".split()
HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def code_name(number: int) -> str:
    """The name of a canonical code; UNKNOWN for a number outside the table."""
    return CODES[number] if 0 <= number < len(CODES) else "UNKNOWN"
