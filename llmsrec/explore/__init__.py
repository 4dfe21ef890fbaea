"""A page on localhost to try a trained dataset in the browser: `llmsrec explore`.

It may import everything of the library; nothing but the command line imports it.
"""

from pathlib import Path

PAGE = Path(__file__).with_name("page.py")  # run by Streamlit
