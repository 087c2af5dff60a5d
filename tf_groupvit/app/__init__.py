"""The page: a photo and words in, coloured regions out, in a browser. Gradio is loaded here alone,
when asked.
"""
