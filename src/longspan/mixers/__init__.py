"""Mixers: how tokens exchange what they know."""
