"""Recipes that ship with longspan: YAML files, called by name."""
