"""The small backbone (architecture, tokenizer, training) and the folder that refers to any backbone.

Imported by the API and the backbone stage.
"""
