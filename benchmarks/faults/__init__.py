"""Faults on purpose: networks that fail, processes that are killed, bytes that change; and what is left."""
