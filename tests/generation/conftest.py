"""The tiny language model and teacher of the student's tests."""

from tests.student.conftest import causal_lm, teacher, tokenizer

__all__ = ["causal_lm", "teacher", "tokenizer"]
