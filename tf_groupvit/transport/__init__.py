"""Requests to a model server over REST or gRPC, as a client without TensorFlow sends them."""
