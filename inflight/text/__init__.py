"""Text to token ids and back: what pre- and postprocessing, the Python API and the chat endpoint share.

Nothing here imports torch or transformers, so that a model instance of Triton starts in well under a second.
"""

from inflight.text.detokenizer import PRECEDING_TOKENS, Detokenizer, TextStream, cut
from inflight.text.tokenizer import Tokenizer

__all__ = ["PRECEDING_TOKENS", "Detokenizer", "TextStream", "Tokenizer", "cut"]
