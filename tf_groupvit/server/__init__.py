"""An embedded stand-in for tensorflow_model_server.

Comments that cite "the contract" mean CONTRACT.md in this folder: what the real server does.
DIFFERENCES.md lists where this one differs.
"""
