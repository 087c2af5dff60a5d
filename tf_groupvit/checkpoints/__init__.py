"""Files of weights in, named arrays out, and back: every format that GroupViT was published in."""
