"""The page in the browser: words to colored regions. Gradio is loaded only here."""
