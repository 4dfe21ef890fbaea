"""What all trainings share: the loop, checkpoints, seeding, batches, negatives, validation, distributed training.

Imported by every package that trains a model, and by those that run one on several processes.
"""
