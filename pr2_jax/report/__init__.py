"""`pr2 report`: everything that a work directory knows, as one page with pictures and CSV files beside it."""
