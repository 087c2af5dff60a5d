"""Quirk cases of the conformance files that this server does not copy, by name, each with its
reason.

Every quirk that is not named here is copied, and a test holds it to that.
`tf_groupvit/server/DIFFERENCES.md` tells users the same, clause by clause.
"""

NOT_COPIED = {
    "Inf, -Inf and -NaN spellings are accepted too": "Python's parser knows NaN and Infinity alone",
}

# Flags of the real server that a case may name and this one has not, each with its reason; the case
# is then skipped.
MISSING_FLAGS = {
    "enable_signature_method_name_check": "off by default in the real server too",
    "enable_serialization_as_tensor_content": "answers are in the typed fields, as by default",
}


def flag_of(case: dict) -> tuple[str, str] | None:
    """The flag that a case needs, as (name, value); None for the defaults."""
    text = case.get("server", "")
    if not text.startswith("--"):
        return None
    name, _, value = text.removeprefix("--").split()[0].partition("=")
    return name, value or "true"
