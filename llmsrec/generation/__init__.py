"""Title generation, the paper's second way to answer.

No stage of the pipeline imports it; systems do.
"""
