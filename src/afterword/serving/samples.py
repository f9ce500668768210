"""What a file is tried on: plain texts of many kinds, and conversations as the model's chat template renders them."""

from typing import Any

Message = dict[str, str]
"""A role and its content."""

TEXTS: tuple[str, ...] = (
    "The committee met on 14 March 2025 and approved 1,250,000 euros for the bridge over the river.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)  # of at least one\n",
    "  Two spaces before,\ttabs\tbetween, and three lines after.\n\n\n",
    "Zürich, São Paulo, Kraków, Αθήνα, Москва, القاهرة, दिल्ली, 東京, 서울: naïve café, 10 °C, ½ and ≠.",
    "An emoji 🙂, a flag 🇫🇮, a family 👩‍👩‍👧, and e\u0301 in two characters.",
    "It's they're we've I'd; can't—won't… “quoted” 'text' 3.14159 x86_64 a+b=c 100% #7 @name",
    '{"id": 7, "name": "Ada", "tags": ["a", "b"], "ok": true, "note": null}',
    "2 + 2 = 4, 17 * 23 = 391, and 1000000007 is a prime.",
)
"""Texts that tokenizers split in their own ways: words, code, white space, other scripts, digits."""

_HELLO = {"role": "user", "content": "Who wrote the report?"}
_ANSWER = {"role": "assistant", "content": "Two people did: Ms Lind and Mr Okafor."}
_AGAIN = {"role": "user", "content": "When?\nGive the day, as {{ date }}, and what 'it' says: <b>naïve</b> 東京."}
_RULE = {"role": "system", "content": "Answer in one sentence. Say so if you do not know."}
CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    (_HELLO,),
    (_HELLO, _ANSWER, _AGAIN),
    (_RULE, _HELLO),
    (_RULE, _HELLO, _ANSWER, _AGAIN),
    (_RULE, _HELLO, _ANSWER, _AGAIN, _ANSWER, _HELLO),
    (_AGAIN, {"role": "assistant", "content": "On 3 May:\n\n- the first draft\n- `print(1)`"}, _HELLO),
)
"""Conversations that end with what a person says: what a server is asked."""


def rendered(tokenizer: Any, messages: tuple[Message, ...], *, reply: bool = True) -> str:
    """A conversation in the tokenizer's chat template; with `reply`, up to where the model goes on."""
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply)
