"""Records of a content and a class: a text, an image or a series, and what it is.

    item          a record as it lies in a file
    collection    how files hold records; one file a form in `collections`
    config        which records: the `data` section of tasks that tell classes
    reading       what is learnt of them before the model is: their encoding and their classes
    sequences     records as sequences of tokens or vectors, and their batches

How a content becomes a sequence is the choice of an input (`data/input.py`).
"""
