"""Parameter-efficient fine-tuning around a language model: settings, training examples, retrieval loss and trainer.

Imported by student, generation and systems.
"""
