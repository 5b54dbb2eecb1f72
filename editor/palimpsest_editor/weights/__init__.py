"""Models, their layers, and low-rank changes of them."""
