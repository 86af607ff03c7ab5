"""Positions: how does order enter? One file each; they never import each other."""
