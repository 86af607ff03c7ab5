"""Other libraries' checkpoints in: one file a layout."""
