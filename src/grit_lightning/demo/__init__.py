"""The demo: a web page on which a model answers questions about images, and its boxes appear as they are written."""
