"""Methods that solve for the change of weights: MEMIT, PMET, AlphaEdit."""
