"""How far back a model really looks: one file a measure.

    contexts     loss at a context of exactly c tokens, which RECL and the effective length read
    recl         relative effective context length of a group of models
    effective    effective context length of one model
    reading      loss against what is carried, and against the position in what is read
    looking      attention by distance, layer and head
    influence    the gradient of a loss by distance
    worth        what a memory is worth: emptied, shuffled, swapped, cut, frozen
    recall       copy, associative recall, a needle in a text, tokens that came before
    price        bytes of state and cost of a token

A measure asks a `Predictor` (`predictor.py`), of which runs (`runs.py`), Hugging Face's causal
models (`interop/causal.py`) and the tests' constructed ones are three kinds.
"""
