"""base64 text: the value of a ``b64`` member in; its bytes out, by the rules of absl's Base64Unescape.

Standard alphabet only; white space is ignored; padding may be missing, or be dots; surplus padding and anything after
it is refused (contract, section 4).
"""

import binascii
import re

from tf_groupvit.server.refusal import invalid

_BLANK = dict.fromkeys(b" \t\n\x0b\x0c\r")
_TEXT = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_PADDING = {0: (0,), 2: (0, 2), 3: (0, 1)}  # characters over a multiple of four: how much padding may follow


def unescape(text: str) -> bytes:
    """The decoded bytes. Raises Refusal."""
    if len(text) % 4 == 0 and not text.endswith("==="):  # Python's strict mode takes surplus padding
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            pass  # blanks, dots, or truly wrong
    match = _TEXT.fullmatch(text.translate(_BLANK))
    if match is None or len(match[2]) not in _PADDING.get(len(match[1]) % 4, ()):
        raise invalid("Unable to base64 decode")
    return binascii.a2b_base64(match[1] + "=" * (-len(match[1]) % 4))
