"""Quirk cases of the conformance files that this server does not copy, by name, each with its reason.

Every quirk that is not named here is copied, and a test holds it to that. `tf_groupvit/server/DIFFERENCES.md` tells
users the same, clause by clause.
"""

NOT_COPIED: dict[str, str] = {}

# Cases whose `server` field names a flag: which of our options gives it, or None where there is none.
FLAGS: dict[str, dict[str, object] | None] = {
    "--rest_api_enable_cors_support": {"rest_api_enable_cors_support": True},
    "--monitoring_config_file": {"monitoring": True},
    "--enable_batching": None,  # requests are not batched here: see DIFFERENCES.md
}


def flag_of(case: dict) -> str | None:
    """The flag that a case needs, None for the defaults."""
    text = case.get("server", "")
    return text.split()[0].split("=")[0] if text.startswith("--") else None
