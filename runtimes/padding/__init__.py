"""Padding: what lets requests of different lengths share a run, and the proof that it changes no answer."""
