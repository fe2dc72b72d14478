"""Data: rows read strictly, split once, tokenised once, kept as arrays that every trial maps."""
