"""What all trainings share: the loop, checkpoints, batches, negatives, validation, several processes."""
