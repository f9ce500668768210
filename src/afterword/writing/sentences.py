"""Sentences of a document, for what is asked about each of them."""

from afterword.corpus import split_sentences

_LEAST_WORDS = 5


def spread_sentences(text: str, count: int, language: str = "en") -> list[str]:
    """So many sentences at about equal distances, in their order; several times the same where there are fewer.

    Those of a few words are left out where there are others: a heading says nothing that can be asked.
    """
    found = [text[start:end].strip() for start, end in split_sentences(text, language)]
    found = [each for each in found if len(each.split()) >= _LEAST_WORDS] or [each for each in found if each]
    return [found[i * len(found) // count] for i in range(count)] if found else []
