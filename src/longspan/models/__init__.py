"""Models: what is made of mixers."""
