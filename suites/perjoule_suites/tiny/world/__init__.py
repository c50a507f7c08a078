"""The open world: captions that say everything, something or almost nothing about a picture, and the score of pictures.

A caption comes first and its scene is drawn from it, so the distribution of the pictures of a caption is known exactly.
Nothing in here knows a model.
"""
