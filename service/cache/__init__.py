"""Owns what a start leaves for the next one: a folder of private files, and the keys that tell when one still fits."""
