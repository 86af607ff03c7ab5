"""Where rows come from, one file a form: see `table.py`."""
