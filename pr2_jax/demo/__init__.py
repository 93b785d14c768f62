"""`pr2 demo`: a local web page that answers one search by base and by pr2, side by side."""
