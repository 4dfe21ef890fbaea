"""The small backbone: architecture, tokenizer and training.

Imported by the backbone stage alone.
"""
