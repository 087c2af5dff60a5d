"""Ways to run the same checkpoint: each in a process of its own, answering the same requests."""
