"""The student: LLM-SRec, a frozen language model with a few trained parts (SPEC 3 and 4.9)."""
