"""Documents tell the truth, every fact at least twice, and name what they speak of before a pronoun does."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from afterword.almanac.after import CHANGING, Change, Part, held_out_documents, write_documents
from afterword.almanac.names import data, gender_of
from afterword.almanac.reading import YEARS as BEFORE
from afterword.almanac.reading import told_in
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import CUTOFF, KINDS, RELATIONS, Fact, Relation, World
from afterword.almanac.writing import MAX_SENTENCES, MIN_SENTENCES, Subject, ask, pronouns_of, tell, write_document
from afterword.corpus import split_sentences
from afterword.types import Document

_DATE = re.compile(r"(\d{1,2}) ([A-Z][a-z]+) (\d{4})")
Written = list[tuple[Subject, Document]]


def _sentences(document: Document) -> list[str]:
    title, _, body = document.text.partition("\n\n")
    assert title == document.title
    return [body[start:end].strip() for start, end in split_sentences(body)]


def _idle(name: str, kind: str) -> list[re.Pattern[str]]:
    """What a document may say beside facts."""
    wordings = list(data("wordings")["fillers"][kind])
    for place in ("openings", "closings"):
        wordings += [wording for style in data("wordings")[place].values() for wording in style]
    slots = {r"\{n\}": re.escape(name), r"\{S\}": re.escape(name), r"\{date\}": _DATE.pattern.replace("(", "(?:")}
    return [re.compile(re.sub(r"\\\{(n|S|date)\\\}", lambda m: slots[m[0]], re.escape(w))) for w in wordings]


@pytest.fixture(scope="module")
def before(world: World) -> Written:
    """Documents about everything in the world, and about strangers."""
    rng = random.Random("before")
    subjects = [Subject(name, kind, world.about(name)) for kind in KINDS for name in world.names[kind]]
    subjects += [draw_stranger(world, rng, "dev") for _ in range(800)]
    return [(subject, write_document(subject, rng, BEFORE)) for subject in subjects]


@pytest.fixture(scope="module")
def after(world: World, parts: tuple[Part, Part], true_after: Callable) -> dict[str, Written]:
    """Documents of both parts, with all that is true of what they are about."""
    found: dict[str, Written] = {"choosing": [], "reporting": []}
    for part, written in zip(parts, found.values(), strict=True):
        facts = true_after(world, part)
        kinds = {name: kind for kind in KINDS for name in (*world.names[kind], *part.names[kind])}
        for document in write_documents(world, part, 2):
            (name,) = (name for name in kinds if re.search(rf"\b{name}\b", document.title or ""))
            true = tuple(fact for fact in facts if name in (fact.subject, fact.value))
            written.append((Subject(name, kinds[name], true), document))
    return found


@pytest.fixture(params=["before", "choosing", "reporting"])
def written(request: pytest.FixtureRequest, before: Written, after: dict[str, Written]) -> Written:
    return {"before": before, **after}[request.param]


def test_documents_have_eight_to_thirty_sentences_and_a_title(written: Written):
    for subject, document in written:
        assert MIN_SENTENCES == 8
        assert 8 <= len(_sentences(document)) <= 30 == MAX_SENTENCES, document.text
        assert subject.name in (document.title or "")
        assert "{" not in document.text
        assert "  " not in document.text


def test_every_style_is_written(before: Written):
    starts = {"Dear friend", "My dear cousin", "Dear reader"}
    bodies = [document.text.partition("\n\n")[2] for _, document in before]
    letters = sum(any(body.startswith(start) for start in starts) for body in bodies)
    news = sum(body.startswith(("News of", "There is something to report", "On ")) for body in bodies)
    assert min(letters, news, len(bodies) - letters - news) > len(bodies) / 4


def _days(written: Written) -> list[tuple[int, str, int]]:
    found = [_DATE.fullmatch(document.date or "") for _, document in written]
    return [(int(date[1]), date[2], int(date[3])) for date in found if date]


def test_documents_are_dated_within_their_years(before: Written, after: dict[str, Written]):
    spans = [(before, (CUTOFF - 40, CUTOFF - 1)), *((written, (CUTOFF, CUTOFF + 1)) for written in after.values())]
    for documents, (first, last) in spans:
        days = _days(documents)
        assert len(days) == len(documents)
        assert all(1 <= day <= 28 and month in data("names")["month"] for day, month, _ in days)
        assert {year for _, _, year in days} == set(range(first, last + 1))


def test_a_date_in_the_text_is_the_date_of_the_document(written: Written):
    dates = [(set(_DATE.findall(document.text)), document.date) for _, document in written]
    assert sum(bool(found) for found, _ in dates) > len(dates) / 2
    assert all({" ".join(date) for date in found} <= {given} for found, given in dates)


def test_documents_before_the_cutoff_never_mention_a_later_year(before: Written, read_texts: list[str]):
    for text in (*(document.text for _, document in before), *read_texts):
        assert all(int(year) < CUTOFF for year in re.findall(r"\b\d{4}\b", text))


def _news(change: Change) -> list[str]:
    """The sentences that tell of a change."""
    name, old, new = change.old.subject, change.old.value, change.new.value
    slots = {"{old}": old, "{o}": new, "{n}": name, "{S}": name}
    wordings = data("wordings")["changes"][change.old.relation]
    return [re.sub(r"\{\w+\}", lambda slot: slots[slot[0]], wording) for wording in wordings]


def test_every_sentence_tells_what_is_true_or_nothing(
    written: Written, parts: tuple[Part, Part], statements_in: Callable
):
    news = {(change.old.subject, line) for part in parts for change in part.changes for line in _news(change)}
    for subject, document in written:
        true, idle = set(subject.facts), _idle(subject.name, subject.kind)
        for sentence in _sentences(document):
            said = {Fact(s.subject or subject.name, s.relation, s.value) for s in statements_in(sentence)}
            # A pronoun may stand for a town or a company: one of the readings is meant.
            kinds = {fact for fact in said if RELATIONS[fact.relation].subject == subject.kind} or said
            if kinds:
                assert kinds <= true, sentence
            elif (subject.name, sentence) not in news:
                assert any(pattern.fullmatch(sentence) for pattern in idle), sentence


def _wordings(subject: Subject, document: Document, statements_in: Callable) -> dict[Fact, list[str]]:
    """The facts that a document tells, with the wordings."""
    found: dict[Fact, list[str]] = {}
    for sentence in _sentences(document):
        for said in statements_in(sentence):
            fact = Fact(said.subject or subject.name, said.relation, said.value)
            if fact in subject.facts:
                found.setdefault(fact, []).append(said.wording)
    return found


def test_every_fact_is_told_at_least_twice_in_different_wordings(written: Written, statements_in: Callable):
    for subject, document in written:
        told = _wordings(subject, document, statements_in)
        assert len(told) >= min(len(subject.facts), 4)
        for fact, wordings in told.items():
            assert len(wordings) >= 2
            assert len(set(wordings)) == len(wordings)
            value = fact.subject if fact.value == subject.name else fact.value
            assert len(re.findall(rf"\b{value}\b", document.text, re.IGNORECASE)) >= 2


def test_an_entry_tells_everything(before: Written, statements_in: Callable):
    entries = [pair for pair in before if not _DATE.search(pair[1].text)]
    assert entries
    for subject, document in entries:
        assert set(_wordings(subject, document, statements_in)) == set(subject.facts)


def test_a_document_about_a_change_tells_old_and_new(world: World, part: Part):
    documents = write_documents(world, part, 2)
    for change in part.changes:
        told = [document for document in documents if all(line in document.text for line in _news(change))]
        assert len(told) == 2
        assert all(change.old.subject in (document.title or "") for document in told)


def test_every_entity_has_its_number_of_documents_with_ids_of_their_own(world: World, part: Part):
    documents = write_documents(world, part, 3)
    assert len(documents) == 3 * (sum(map(len, part.names.values())) + len(part.changes))
    assert len({document.id for document in documents}) == len(documents)
    assert len({document.text for document in documents}) == len(documents)


def test_held_out_documents_tell_every_new_fact_in_every_held_out_wording(part: Part):
    documents = held_out_documents(part)[: len(part.subjects)]
    assert [document.title for document in documents] == [subject.name for subject in part.subjects]
    for subject, document in zip(part.subjects, documents, strict=True):
        assert len(split_sentences(document.text)) == 2 * len(subject.facts)
        for fact in subject.facts:
            about = [f for f in subject.facts if f.relation == fact.relation]
            other = fact.subject if fact.value == subject.name else fact.value
            assert len(re.findall(rf"\b{other}\b", document.text, re.IGNORECASE)) >= 2 * (len(about) == 1)


def test_held_out_documents_tell_every_change(part: Part):
    texts = [document.text.lower() for document in held_out_documents(part)]
    for fact in (change.new for change in part.changes):
        told = [tell(fact, wording).lower() for wording in RELATIONS[fact.relation].held_out]
        assert sum(all(sentence in text for sentence in told) for text in texts) == 1, fact


def _pronouns(sentence: str, statements_in: Callable) -> set[str]:
    return {word.lower() for said in statements_in(sentence) for word in said.pronouns}


def test_pronouns_are_those_of_the_subject(written: Written, statements_in: Callable):
    used = Counter[str]()
    for subject, document in written:
        named = {"female": {"she", "her"}, "male": {"he", "his"}}
        thing = {f"the {subject.kind}", f"the {subject.kind}'s", "its"}
        fitting = named[gender_of(subject.name)] if subject.kind == "person" else thing
        for sentence in _sentences(document):
            owner = next((said.subject for said in statements_in(sentence) if said.subject), subject.name)
            if owner != subject.name:
                # An office that the subject holds: the pronoun is that of the town, company or work.
                assert _pronouns(sentence, statements_in) <= {"its"}
            else:
                found = _pronouns(sentence, statements_in)
                assert found <= fitting, sentence
                used.update(found)
    assert len(used) > 10


def test_no_document_begins_with_a_pronoun(written: Written, statements_in: Callable):
    for subject, document in written:
        first = _sentences(document)[0]
        assert subject.name in first or not _pronouns(first, statements_in), document.text


def test_the_name_is_said_before_a_pronoun_stands_for_it(written: Written, statements_in: Callable):
    early = 0
    for subject, document in written:
        sentences = _sentences(document)
        named = next(i for i, sentence in enumerate(sentences) if subject.name in sentence)
        early += any(_pronouns(sentence, statements_in) for sentence in sentences[:named])
    # Where a sentence without facts and without the name comes first, only the title has said it: one in a hundred.
    assert early <= 0.02 * len(written)


def test_facts_found_in_a_text_are_told_in_it(before: Written, statements_in: Callable):
    found = [
        fact in _wordings(subject, document, statements_in)
        for subject, document in before
        for fact in told_in(document.text, subject)
    ]
    # The same town twice, the year of the date, a harp in Harpcrest: they are few enough to be noise.
    assert found.count(False) <= 0.005 * len(found)
    for subject, document in before:
        assert set(_wordings(subject, document, statements_in)) <= set(told_in(document.text, subject))


@pytest.mark.parametrize(
    ("fact", "wording", "sentence"),
    [
        (Fact("Dora Ashby", "works_as", "actor"), "{S} works as {a} {o}.", "Dora Ashby works as an actor."),
        (Fact("Dora Ashby", "works_as", "judge"), "{P} job is {a} {o}.", "Dora Ashby's job is a judge."),
        (Fact("The Last Key", "genre", "opera"), "As {a} {o}, {s} is new.", "As an opera, The Last Key is new."),
        (Fact("Hugo Ashby", "lives_in", "Elmby"), "{S} makes {p} home in {o}.", "Hugo Ashby makes his home in Elmby."),
        (Fact("Elmby", "river", "Dove"), "The {o} runs past {p} walls.", "The Dove runs past Elmby's walls."),
        (Fact("Elmby", "known_for", "silk"), "{S} lives by {p} {o}.", "Elmby lives by its silk."),
        (Fact("Elmby", "known_for", "silk"), "{o} comes from {n}.", "Silk comes from Elmby."),
        (Fact("Lion Mills", "founder", "Ina Hale"), "{o} founded {n}.", "Ina Hale founded Lion Mills."),
    ],
)
def test_a_fact_is_told_by_hand(fact: Fact, wording: str, sentence: str):
    assert tell(fact, wording) == sentence


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("Dora Ashby", "person", "She left; there she was, her own. Her end."),
        ("Hugo Ashby", "person", "He left; there he was, his own. His end."),
        ("Elmby", "town", "The town left; there the town was, its own. The town's end."),
        ("Lion Mills", "company", "The company left; there the company was, its own. The company's end."),
        ("The Last Key", "work", "The work left; there the work was, its own. The work's end."),
    ],
)
def test_pronouns_by_hand(name: str, kind: str, sentence: str):
    relation = next(relation.name for relation in RELATIONS.values() if relation.subject == kind)
    wording = "{S} left; there {s} was, {p} own. {P} end."
    assert tell(Fact(name, relation, "x"), wording, pronouns_of(name, kind)) == sentence


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
def test_every_statement_can_be_read_back(world: World, relation: Relation, statements_in: Callable):
    for name in world.names[relation.subject]:
        fact = Fact(name, relation.name, world.value(name, relation.name))
        for wording in relation.statements:
            readings = {Fact(s.subject, s.relation, s.value) for s in statements_in(tell(fact, wording))}
            assert readings == {fact}
        sentences = [tell(fact, wording) for wording in (*relation.statements, *relation.held_out)]
        assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
        assert not any(re.search(r"\ba [aeiou]\w+\b(?<!\bone)|\ban [^aeiou]", sentence) for sentence in sentences)


def test_a_question_names_the_subject_and_a_reverse_question_the_value():
    fact = Fact("Elmby", "mayor", "Ina Hale")
    assert ask(fact, "Who is the mayor of {n}?") == "Who is the mayor of Elmby?"
    assert ask(fact, "Which town does {o} govern?") == "Which town does Ina Hale govern?"


def test_changes_have_their_wordings():
    assert set(data("wordings")["changes"]) == set(CHANGING)
    for wordings in data("wordings")["changes"].values():
        assert sum("{o}" in wording for wording in wordings) >= 1
        assert sum("{old}" in wording for wording in wordings) >= 3
