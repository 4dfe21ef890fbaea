"""Every system that the paper compares, and the rivals that a reader will ask for (SPEC 4 and 9)."""
