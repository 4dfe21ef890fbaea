"""LLM-SRec (Kim et al., KDD 2025): a frozen language model taught the order of purchases."""
