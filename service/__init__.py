"""Layertap: trained Keras models behind HTTP, hidden layers included. Importing it has no effect."""
