"""The open world of the tiny family: captions that say everything, something or almost nothing about a picture.

A caption comes first and its scene is drawn from it, so the distribution of the pictures of a caption is known exactly.
"""
