"""Scores: how are a query and a key compared? One file each; they never import each other."""
