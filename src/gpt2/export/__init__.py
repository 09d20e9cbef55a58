"""Models in the formats of others: whole, read back and compared before they get their names."""
