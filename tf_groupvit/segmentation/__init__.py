"""Images and class names in, label maps out."""
