"""Token in, token out: what every engine that returns sampled ids shares."""

from hermes_core.models.tokens._check import check_tokens
from hermes_core.models.tokens._conversation import History, TokenConversation
from hermes_core.models.tokens._engine import Completion, TokenEngine, is_neutral
from hermes_core.models.tokens._folder_tokenizer import FolderTokenizer
from hermes_core.models.tokens._llamacpp import LlamaTokenizer, listed_logprob
from hermes_core.models.tokens._model_folder import hub_snapshots, model_folder
from hermes_core.models.tokens._prefix import PrefixCheck, check_prefix
from hermes_core.models.tokens._prompt import opening_ids, suffix_ids
from hermes_core.models.tokens._tokenizer import Tokenizer

__all__ = [
    "Completion",
    "FolderTokenizer",
    "History",
    "LlamaTokenizer",
    "PrefixCheck",
    "TokenConversation",
    "TokenEngine",
    "Tokenizer",
    "check_prefix",
    "check_tokens",
    "hub_snapshots",
    "is_neutral",
    "listed_logprob",
    "model_folder",
    "opening_ids",
    "suffix_ids",
]
