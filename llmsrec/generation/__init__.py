"""Title generation (the paper's mode G): prompts with candidates, greedy or likelihood answers, training.

Imported by systems only; no stage of the pipeline needs it.
"""
