"""How a content becomes a sequence, one file a kind: see `input.py`."""
