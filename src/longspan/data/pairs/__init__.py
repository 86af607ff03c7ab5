"""Pairs of sequences: what is read, and what is written about it.

config      which pairs: the `data` section of tasks with a source and a target
records     pairs of texts from tables and parallel files
corpus      pairs as token ids
prepared    tokenised once, split, kept and found again
batches     batches of records of like length, each a function of the step
"""
