"""Messages as JSON text: a protobuf message in; the text of the status and metadata routes out.

Laid out as protobuf's C++ printer does and the documentation of TensorFlow Serving shows: one blank a level, every
field there also where it has its default, those of a oneof after the others (contract, section 6).
"""

import json
from typing import Any

from google.protobuf import json_format


def proto_json(message: Any, proto_names: bool = False) -> str:
    """The text, with a line break at the end. ``proto_names`` keeps the names of the .proto file."""
    options = {"preserving_proto_field_name": proto_names}
    try:
        value = json_format.MessageToDict(message, always_print_fields_with_no_presence=True, **options)
    except TypeError:  # protobuf before 5.26
        value = json_format.MessageToDict(message, including_default_value_fields=True, **options)
    return json.dumps(_ordered(value, message.DESCRIPTOR, proto_names), indent=1, ensure_ascii=False) + "\n"


def _ordered(value: Any, descriptor: Any, proto_names: bool) -> Any:
    """The members of a message's dict in the printer's order, and so on inwards; entries of maps by name."""
    if isinstance(value, list):
        return [_ordered(element, descriptor, proto_names) for element in value]
    if not isinstance(value, dict) or descriptor is None:
        return value
    if descriptor.GetOptions().map_entry:
        inner = descriptor.fields_by_name["value"].message_type
        return {key: _ordered(value[key], inner, proto_names) for key in sorted(value)}
    fields = sorted(descriptor.fields, key=lambda field: (field.containing_oneof is not None, field.number))
    names = [(field.name if proto_names else field.json_name, field.message_type) for field in fields]
    return {name: _ordered(value[name], inner, proto_names) for name, inner in names if name in value}
