"""Kernels: how is it executed? One file each; they never import each other."""
