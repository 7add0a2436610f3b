"""Text that is on every machine with Python, as bytes numbered from 0: the manual that its `help()` shows.

python experiments/characters/text.py
"""

import platform
from pydoc_data.topics import topics

import numpy as np


def manual():
    """The manual, topic by topic. Some have paragraphs of others word by word: each comes once, or text of the
    validation split would be in the training split, too."""
    paragraphs = {}
    for name in sorted(topics):
        for paragraph in topics[name].strip().split("\n\n"):
            paragraphs.setdefault(" ".join(paragraph.split()), paragraph)
    return "\n\n".join(paragraphs.values())


def tokens():
    """The manual as uint8 (bytes,), and the bytes that occur in it, (vocabulary,): token `i` is byte `known[i]`."""
    text = np.frombuffer(manual().encode(), np.uint8)
    known, index = np.unique(text, return_inverse=True)
    return index.astype(np.uint8), known


if __name__ == "__main__":
    text, known = tokens()
    print(f"the manual of Python {platform.python_version()}: {len(text):,} bytes, of which {len(known)} differ")
    print("© Python Software Foundation, PSF License Agreement Version 2: https://docs.python.org/3/license.html")
