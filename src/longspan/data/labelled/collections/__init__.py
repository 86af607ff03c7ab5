"""How files hold records of a content and a class, one file a form: see `collection.py`."""
