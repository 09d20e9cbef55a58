"""Ids in, ids out: what computes a model, and the rows that are written together."""
