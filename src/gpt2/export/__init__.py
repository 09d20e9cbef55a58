"""Export of models to the formats of other programs; each export is compared with its model."""
