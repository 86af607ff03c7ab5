"""Memories: what survives the segment? One file each; they never import each other."""
