"""Self-supervised losses between renderings and face targets, and the objective that joins them.

Every function returns one value per face, so that the caller can normalise over all faces of all ranks.
"""
