"""The embedded model's tokenizer: numbers, fixed template text, bytes.

Every integer 0–999 is one token, every fixed stretch of a move's or role's template is one token (so that a prompt
costs a few tokens), and so are the stock phrases of the replies it learns; anything else is spelled in bytes, so no
text is unknown. Built from the template files: other templates make another vocabulary.
"""

import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from agents.moves import fixed_chunks, template_files
from envs.types import ERROR_KINDS

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ENV_PHRASES = ("What is ", "an arithmetic problem with ", " operation", " on whole numbers up to ")
REPLY_PHRASES = (
    *(" + ", " - ", " * ", " = ", "; ", "\\boxed{", "(none)"),
    *("\nGiven: ", "\nVerdict: ", "correct", "incorrect", "\nA: ", "\nB: ", ", "),
    *("Error: ", "\nStep: ", *ERROR_KINDS),
    *("<question>", "</question>\n", "```python\nprint(", ")\n```"),
    *("\nYou say ", "I agree.", "I disagree: ", ", not ", "Affirmative", "Negative", "Affirmative: ", "\nNegative: "),
    *('{"reason": "', ". Affirmative ", "; negative ", '.", "preference": "', "Yes", "No", '", "side": "'),
    *('", "answer": "', '.", "answer": "', '"}'),
    *("\nChoice: ", ": ", " / ", "X", "Your answer is wrong.", "Running it shows an error in line "),
)
VERDICTS = ("correct", "incorrect", "A", "B", "Yes", "No", "Affirmative", "Negative")
"""The tokens that decide something: they weigh more in the loss."""
CONTEXT_TOKENS = 1024
INTEGERS = range(1000)


def template_phrases() -> list[str]:
    """The fixed text of all templates; stretches of fewer than five characters are left to bytes."""
    chunks = {chunk for path in template_files() for chunk in fixed_chunks(path.read_text(encoding="utf-8"))}
    return sorted(chunk for chunk in chunks if len(chunk) >= 5 and re.search(r"[A-Za-z]", chunk))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, the same at every call for the same template files."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*SPECIAL, *symbols])}
    for integer in INTEGERS:
        vocabulary.setdefault(str(integer), len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    groups_of_three = Regex(r"\d{1,3}(?=(?:\d{3})*(?!\d))")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(groups_of_three, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    phrases = dict.fromkeys([*ENV_PHRASES, *REPLY_PHRASES, *template_phrases()])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in phrases])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(directory: Path) -> None:
    build_tokenizer().save_pretrained(directory)
