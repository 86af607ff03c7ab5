"""How the next token, or the whole text, is chosen: one file a strategy."""
