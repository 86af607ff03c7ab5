"""Patterns: which pairs may meet? One file each; they never import each other."""
