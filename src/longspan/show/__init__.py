"""Shows what was measured: a table for the terminal, and a page with plots that opens offline."""
