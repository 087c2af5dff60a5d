"""Ways to a model server, REST and gRPC: what a client asks in, what the server answers out."""
