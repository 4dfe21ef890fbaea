"""A page on localhost to try a trained dataset in the browser: `llmsrec explore`.

It may import everything of the library; nothing imports it.
"""
