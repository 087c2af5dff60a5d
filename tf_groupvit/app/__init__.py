"""The page in the browser: a photo and words in, colored regions out. Only here is Gradio loaded."""
