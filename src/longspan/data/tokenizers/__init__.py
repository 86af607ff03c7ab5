"""Tokenizers: what a token is. One file each."""
