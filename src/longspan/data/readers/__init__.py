"""Readers: where documents come from. One file each."""
