"""The teacher: SASRec, trained on interactions alone (SPEC 4.1)."""
