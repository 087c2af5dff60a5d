"""The towers and the joint model, in keras.ops alone."""
