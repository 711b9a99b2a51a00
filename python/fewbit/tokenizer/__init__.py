"""Text to token ids and back, and chat templates."""

from fewbit.tokenizer.load import from_folder, from_gguf, tokenizer_of
from fewbit.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer", "from_folder", "from_gguf", "tokenizer_of"]
