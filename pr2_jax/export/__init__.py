"""Models as exported programs: what serves without the code that trained them."""
