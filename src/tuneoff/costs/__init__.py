"""Money: what training and answering cost, from tokens, seconds and prices."""
