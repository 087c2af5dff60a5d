"""Nothing in, the messages of serving's own text files that tensorflow-serving-api does not ship,
as classes, out.

Written from the fields that TensorFlow Serving documents: session_bundle_config.proto
(BatchingParameters) and monitoring_config.proto (MonitoringConfig). Values that may be absent are
wrapped in messages, as there.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

BOOL, INT64, STRING, MESSAGE = 8, 3, 9, 11
REPEATED = ("allowed_batch_sizes",)
MESSAGES = {
    "Int64Value": [(1, "value", INT64, "")],
    "BoolValue": [(1, "value", BOOL, "")],
    "BatchingParameters": [
        (1, "max_batch_size", MESSAGE, "Int64Value"),
        (2, "batch_timeout_micros", MESSAGE, "Int64Value"),
        (3, "max_enqueued_batches", MESSAGE, "Int64Value"),
        (4, "num_batch_threads", MESSAGE, "Int64Value"),
        (6, "allowed_batch_sizes", INT64, ""),
        (7, "pad_variable_length_inputs", BOOL, ""),
    ],
    "PrometheusConfig": [(1, "enable", BOOL, ""), (2, "path", STRING, "")],
    "MonitoringConfig": [(1, "prometheus_config", MESSAGE, "PrometheusConfig")],
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="serving_texts.proto", package="serving_texts", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, label, kind, type_name in fields:
            field = message.field.add(
                number=number, name=label, type=kind, label=3 if label in REPEATED else 1
            )
            if type_name:
                field.type_name = f".serving_texts.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"serving_texts.{n}"))
        for n in MESSAGES
    }


_FOUND = _classes()
BatchingParameters, MonitoringConfig = _FOUND["BatchingParameters"], _FOUND["MonitoringConfig"]
