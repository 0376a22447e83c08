"""Tables of a user's own: columns become numbers, rows become clients' examples."""
