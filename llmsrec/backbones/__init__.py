"""The small backbone (architecture, tokenizer, training), the check of any backbone, and the folder that refers to it.

Imported by the API and the backbone stage.
"""
