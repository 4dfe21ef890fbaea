"""The systems that the paper compares with LLM-SRec, and later rivals.

Imported by studies alone.
"""
