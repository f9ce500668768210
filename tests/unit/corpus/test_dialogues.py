"""Instructions and preferences: every usual form gives the same dialogue, and what is no dialogue says why."""

import gzip
import hashlib
import json
from types import SimpleNamespace

import pytest

from afterword.corpus import CorpusOptions, Dialogue, dialogue_of, plain_text, read_corpus
from afterword.errors import ConfigError, DataError
from afterword.storage.files import BadRowError
from afterword.types import Document, Skipped


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def wrote(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


ASKED = said("user", "Capital of Norway?")
OSLO, BERGEN = said("assistant", "Oslo."), said("assistant", "Bergen.")
BRIEF = said("system", "Be brief.")
EARLIER = (said("user", "Hi!"), said("assistant", "Hello."))
PARTS = [{"type": "text", "text": "Capital of "}, {"type": "text", "text": "Norway?", "image": None}]

INSTRUCTIONS = {
    "messages": ({"messages": [ASKED, OSLO]}, (ASKED, OSLO)),
    "several turns": ({"messages": [BRIEF, *EARLIER, ASKED, OSLO]}, (BRIEF, *EARLIER, ASKED, OSLO)),
    "parts": ({"messages": [{"role": "user", "content": PARTS}, OSLO]}, (ASKED, OSLO)),
    "ShareGPT": (
        {"conversations": [wrote("system", "Be brief."), wrote("human", ASKED["content"]), wrote("gpt", "Oslo.")]},
        (BRIEF, ASKED, OSLO),
    ),
    "ShareGPT, other names": (
        {"conversations": [wrote("user", ASKED["content"]), wrote("assistant", "Oslo.")]},
        (ASKED, OSLO),
    ),
    "prompt": ({"prompt": ASKED["content"], "completion": "Oslo."}, (ASKED, OSLO)),
    "prompt as messages": ({"prompt": [BRIEF, ASKED], "completion": [OSLO]}, (BRIEF, ASKED, OSLO)),
    "prompt as messages, text": ({"prompt": [ASKED], "completion": "Oslo."}, (ASKED, OSLO)),
    "alpaca": ({"instruction": ASKED["content"], "input": "", "output": "Oslo."}, (ASKED, OSLO)),
    "alpaca without input": ({"instruction": ASKED["content"], "output": "Oslo."}, (ASKED, OSLO)),
    "alpaca with all": (
        {"instruction": "Translate.", "input": "by", "output": "city", "system": "Be brief.", "history": []},
        (BRIEF, said("user", "Translate.\n\nby"), said("assistant", "city")),
    ),
    "nulls": ({"messages": None, "prompt": ASKED["content"], "completion": "Oslo.", "system": None}, (ASKED, OSLO)),
    "system beside": ({"messages": [ASKED, OSLO], "system": "Be brief."}, (BRIEF, ASKED, OSLO)),
    "system twice": ({"messages": [BRIEF, ASKED, OSLO], "system": "Be brief."}, (BRIEF, ASKED, OSLO)),
    "system empty": ({"messages": [said("system", " "), ASKED, OSLO], "system": ""}, (ASKED, OSLO)),
    "other columns": ({"messages": [{**ASKED, "name": "x"}, OSLO], "text": "no", "score": 3}, (ASKED, OSLO)),
}
PREFERENCES = {
    "texts": ({"prompt": ASKED["content"], "chosen": "Oslo.", "rejected": "Bergen."}, (ASKED, OSLO)),
    "messages": ({"prompt": [*EARLIER, ASKED], "chosen": [OSLO], "rejected": [BERGEN]}, (*EARLIER, ASKED, OSLO)),
    "message": ({"prompt": [BRIEF, ASKED], "chosen": OSLO, "rejected": BERGEN}, (BRIEF, ASKED, OSLO)),
    "implicit prompt": (
        {"chosen": [*EARLIER, ASKED, OSLO], "rejected": [*EARLIER, ASKED, BERGEN]},
        (*EARLIER, ASKED, OSLO),
    ),
    "prompt three times": (
        {"prompt": ASKED["content"], "messages": [ASKED, OSLO], "chosen": [ASKED, OSLO], "rejected": [ASKED, BERGEN]},
        (ASKED, OSLO),
    ),
    "prompt and more": (
        {"prompt": [*EARLIER], "chosen": [ASKED, OSLO], "rejected": [ASKED, BERGEN]},
        (*EARLIER, ASKED, OSLO),
    ),
    "ShareGPT": (
        {
            "conversations": [wrote("human", ASKED["content"])],
            "chosen": wrote("gpt", "Oslo."),
            "rejected": wrote("gpt", "Bergen."),
        },
        (ASKED, OSLO),
    ),
    "ShareGPT, texts": ({"messages": [ASKED], "chosen": "Oslo.", "rejected": "Bergen."}, (ASKED, OSLO)),
    "ShareGPT, system": (
        {"conversations": [wrote("human", "Hm?")], "chosen": OSLO, "rejected": BERGEN, "system": "Be brief."},
        (BRIEF, said("user", "Hm?"), OSLO),
    ),
}


@pytest.mark.parametrize(("row", "messages"), INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_every_form_of_an_instruction(row, messages):
    assert dialogue_of(row, "instructions") == Dialogue(messages)


@pytest.mark.parametrize(("row", "messages"), PREFERENCES.values(), ids=PREFERENCES)
def test_every_form_of_a_preference(row, messages):
    assert dialogue_of(row, "preferences") == Dialogue(messages, "Bergen.")


def pair(chosen, rejected, **more):
    return {"prompt": "Capital?", "chosen": chosen, "rejected": rejected, **more}


IMAGE = [{"type": "image", "text": "What it shows."}]
REFUSED = {
    "no column": ("instructions", {"a": 1, "text": "x"}, ["column messages missing", "there: a, text", "prompt + com"]),
    "no completion": ("instructions", {"prompt": "Q"}, ["column completion missing", "instruction + output"]),
    "output null": ("instructions", {"instruction": "Q", "input": "", "output": None}, ["column output missing"]),
    "a pair": ("instructions", pair("a", "b"), ["column completion missing"]),
    "no rejected": ("preferences", {"messages": [ASKED], "chosen": OSLO}, ["column rejected missing", "Preferences"]),
    "no pair": ("preferences", {"messages": [ASKED, OSLO]}, ["column chosen and rejected missing"]),
    "empty row": ("preferences", {}, ["there: none", "column chosen and rejected missing"]),
    "empty response": ("instructions", {"prompt": "Q", "completion": " \n"}, ["the response is empty"]),
    "empty chosen": ("preferences", pair("", "b"), ["the response is empty"]),
    "empty rejected": ("preferences", pair("a", "\n"), ["the rejected response is empty"]),
    "empty question": ("instructions", {"instruction": "", "input": "", "output": "A"}, ["message 1 (user) is empty"]),
    "ends with user": (
        "instructions",
        {"messages": [ASKED, OSLO, ASKED]},
        ["response of the assistant, not with user"],
    ),
    "no message": ("instructions", {"messages": []}, ["not with nothing"]),
    "no question": ("instructions", {"messages": [BRIEF, OSLO]}, ["must follow a message of the user"]),
    "only a response": ("preferences", {"chosen": "a", "rejected": "b"}, ["must follow a message of the user"]),
    "prompt ends with assistant": ("preferences", pair("a", "b", prompt=[ASKED, OSLO]), ["must follow a message of"]),
    "tool": ("instructions", {"messages": [ASKED, said("tool", "x"), OSLO]}, ["'tool' in messages is no known role"]),
    "function": ("instructions", {"conversations": [wrote("function_call", "x")]}, ["'function_call'", "gpt"]),
    "null role": (
        "instructions",
        {"messages": [{"role": None, "content": "x"}]},
        ["role and content", "from and value"],
    ),
    "no content": ("instructions", {"messages": [{"role": "user"}]}, ["role and content or from and value"]),
    "texts": ("instructions", {"messages": ["Q", "A"]}, ["a message in messages must have", "not 'Q'"]),
    "one text": ("instructions", {"messages": "Q"}, ["messages must be a list of messages, not 'Q'"]),
    "number": ("instructions", {"prompt": 5, "completion": "A"}, ["prompt must be a list of messages, not 5"]),
    "content null": ("instructions", {"messages": [ASKED, said("assistant", None)]}, ["must be a text, not None"]),
    "input number": (
        "instructions",
        {"instruction": "Q", "input": 5, "output": "A"},
        ["in input must be a text, not 5"],
    ),
    "image": ("instructions", {"messages": [said("user", IMAGE), OSLO]}, ["part of type 'image'", "only", "'text'"]),
    "parts of text": ("instructions", {"messages": [said("user", ["Q"]), OSLO]}, ["holds 'Q'"]),
    "history": ("instructions", {"instruction": "Q", "output": "A", "history": [["a", "b"]]}, ["history", "not read"]),
    "same": ("preferences", pair("a", "a"), ["chosen and the rejected response are the same"]),
    "same, whole": ("preferences", {"chosen": [ASKED, OSLO], "rejected": [ASKED, OSLO]}, ["are the same"]),
    "chosen by user": ("preferences", pair(said("user", "a"), "b"), ["chosen must be one response of the assistant"]),
    "rejected goes on": ("preferences", pair([OSLO], [BERGEN, ASKED, OSLO]), ["rejected must be one response"]),
    "no shared prompt": ("preferences", {"chosen": [ASKED, OSLO], "rejected": [*EARLIER]}, ["chosen must be one resp"]),
    "nothing chosen": ("preferences", pair([], "b"), ["chosen must be one response"]),
}


@pytest.mark.parametrize(("kind", "row", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_dialogue_is_broken_and_says_why(kind, row, words):
    with pytest.raises(BadRowError) as error:
        dialogue_of(row, kind)
    assert error.value.reason == "broken"
    assert not [word for word in words if word not in str(error.value)], str(error.value)
    assert not str(error.value).endswith(".")


@pytest.mark.parametrize("row", [pair("a\ud800", "b"), pair("a", "b\ud800")])
def test_half_a_surrogate_pair_is_undecodable_wherever_it_is(row):
    with pytest.raises(BadRowError, match="not valid Unicode") as error:
        dialogue_of(row, "preferences")
    assert error.value.reason == "undecodable"


@pytest.mark.parametrize("rejected", [None, 'Bergen "ß" 😀\n'])
def test_a_dialogue_survives_json_and_equal_dialogues_have_equal_json(rejected):
    dialogue = Dialogue((BRIEF, said("user", "Größe?\u2028\n"), OSLO), rejected)
    text = dialogue.to_json()
    assert Dialogue.from_json(text) == dialogue
    assert "Größe" in text
    turned = tuple(dict(reversed(message.items())) for message in dialogue.messages)
    assert Dialogue(turned, rejected).to_json() == text


def test_the_json_is_compact():
    assert Dialogue((ASKED, OSLO)).to_json() == (
        '{"messages":[{"content":"Capital of Norway?","role":"user"},{"content":"Oslo.","role":"assistant"}],'
        '"rejected":null}'
    )


def test_prompt_and_response_are_the_two_halves():
    dialogue = Dialogue((BRIEF, ASKED, OSLO), "Bergen.")
    assert (dialogue.prompt, dialogue.response) == ((BRIEF, ASKED), "Oslo.")


def test_plain_text_has_all_contents_and_neither_roles_nor_the_rejected_response():
    dialogue = Dialogue((BRIEF, *EARLIER, ASKED, OSLO), "Bergen.")
    assert plain_text(dialogue) == "Be brief.\n\nHi!\n\nHello.\n\nCapital of Norway?\n\nOslo."
    assert plain_text(Dialogue((ASKED, OSLO)), " ") == "Capital of Norway? Oslo."


@pytest.fixture
def read(tmp_path):
    def read(sources, **options):
        return read_corpus(sources, cache_dir=tmp_path / "cache", options=CorpusOptions(**options))

    return read


FLAT = [
    {"id": "a", "instruction": "Capital?", "input": "Norway", "output": "Oslo,\nof course."},
    {"id": "b", "instruction": "Größe?", "input": "", "output": "Groß."},
]
TEXTS = ["Capital?\n\nNorway\n\nOslo,\nof course.", "Größe?\n\nGroß."]
CONVERSATIONS = [{"messages": [said("user", f"Q{i}"), said("assistant", f"A{i}")], "date": f"{i}"} for i in range(3)]
PAIRS = [pair([said("assistant", f"A{i}")], [said("assistant", f"B{i}")], title=f"T{i}") for i in range(3)]


def written(path, rows):
    """`rows` in the format that the ending says."""
    import csv
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    name, content = path.name.removesuffix(".gz"), io.StringIO(newline="")
    if name.endswith(".parquet"):
        binary = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), binary)
    elif name.endswith(".csv"):
        writer = csv.DictWriter(content, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    elif name.endswith(".jsonl"):
        content.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        json.dump(rows, content)
    data = binary.getvalue() if name.endswith(".parquet") else content.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("compressed", ["", ".gz"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_flat_rows_give_the_same_dialogues_in_every_format(tmp_path, read, ending, compressed):
    corpus = read(written(tmp_path / f"rows{ending}{compressed}", FLAT), kind="instructions")
    assert [(d.id, d.text) for d in corpus] == list(zip("ab", TEXTS, strict=True))
    assert [Dialogue.from_json(d.dialogue) for d in corpus] == [dialogue_of(row, "instructions") for row in FLAT]


@pytest.mark.parametrize("ending", [".jsonl", ".json.gz", ".parquet", "memory", "generator", "data set", "saved"])
def test_nested_rows_are_read_from_everywhere_with_their_labels(tmp_path, read, ending):
    import datasets

    for rows, kind in ((CONVERSATIONS, "instructions"), (PAIRS, "preferences")):
        source = tmp_path / f"{kind}{ending}"
        if ending == "saved":
            datasets.Dataset.from_list(rows).save_to_disk(source)
        made = {"memory": rows, "generator": iter(rows), "saved": source}
        given = datasets.Dataset.from_list(rows) if ending == "data set" else made.get(ending)
        corpus = read([given or written(source, rows)], kind=kind)
        assert [Dialogue.from_json(d.dialogue) for d in corpus] == [dialogue_of(row, kind) for row in rows]
        assert [(d.date, d.title) for d in corpus] == [(row.get("date"), row.get("title")) for row in rows]
        assert all(d.id.endswith(str(i + (ending == ".jsonl"))) for i, d in enumerate(corpus))


def test_the_joiner_is_in_the_text_and_not_in_the_dialogue(read):
    (document,) = read([{"prompt": "Q", "completion": "A"}], kind="instructions", joiner=" → ")
    assert document == Document("memory:0", "Q → A", source="memory", dialogue=document.dialogue)
    assert Dialogue.from_json(document.dialogue) == Dialogue((said("user", "Q"), said("assistant", "A")))


@pytest.mark.parametrize(
    "content",
    [CONVERSATIONS[0], {"version": 1, "data": CONVERSATIONS[:1]}, {"conversations": CONVERSATIONS[0]["messages"]}],
)
def test_json_files_that_are_one_dialogue_or_hold_a_list_of_them(tmp_path, read, content):
    (tmp_path / "file.json").write_text(json.dumps(content))
    assert [d.text for d in read(tmp_path / "file.json", kind="instructions")] == ["Q0\n\nA0"]


@pytest.mark.parametrize("ending", [".txt", ".md", ".html", ".txt.gz"])
def test_texts_hold_no_dialogues(tmp_path, read, ending):
    (tmp_path / f"notes{ending}").write_text("A text.")
    for source in (tmp_path, tmp_path / f"notes{ending}"):
        with pytest.raises(
            DataError, match=r"Known for preferences: \.jsonl \.json \.csv \.parquet \(plain or \.gz\)\."
        ):
            read(source, kind="preferences")


def test_texts_beside_dialogues_in_a_folder_are_counted(tmp_path, read):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("What this is.")
    written(tmp_path / "docs" / "rows.jsonl", CONVERSATIONS)
    (report,) = read(tmp_path / "docs", kind="instructions").sources
    assert (report.documents, report.files, report.ignored_files) == (3, 1, {".md": 1})


def test_bad_rows_stop_the_reading_or_are_skipped_counted_and_listed(tmp_path, read):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Q", "completion": "A"}\n["no mapping"]\n{"prompt": "Q", "completion": ""}\n')
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: instructions are rows with .*skip_bad_rows"):
        read(path, kind="instructions")
    corpus = read(path, kind="instructions", skip_bad_rows=True)
    assert len(corpus) == 1
    assert corpus.skipped[1] == Skipped(str(path), "line 3", "broken", "the response is empty")


def test_a_document_is_no_dialogue(read):
    with pytest.raises(DataError, match="instructions are rows with named columns, not Document"):
        read([Document("d", "A text.")], kind="instructions")


def test_a_document_keeps_the_dialogue_that_it_came_with(read):
    documents = list(read(PAIRS, kind="preferences"))
    assert list(read(documents)) == documents


def test_a_column_that_is_named_has_to_be_there(read):
    with pytest.raises(DataError, match=r"id_column = 'key': no such column"):
        read(CONVERSATIONS, kind="instructions", id_column="key")
    later = [{**CONVERSATIONS[0], "key": "k"}, CONVERSATIONS[1]]
    assert [d.id for d in read(later, kind="instructions", id_column="key")] == ["k", "memory:1"]


def test_options_that_cannot_be_meant(read):
    with pytest.raises(ConfigError, match=r"kind: 'instruction' is not one of .*Did you mean instructions"):
        read(CONVERSATIONS, kind="instruction")
    with pytest.raises(ConfigError, match="text_column: instructions have no text column, got 'messages'"):
        read(CONVERSATIONS, kind="instructions", text_column="messages")


def test_options_are_taken_from_settings_that_have_some_of_them():
    expected = CorpusOptions(id_column="key", max_documents=3)
    settings = {"id_column": "key", "max_documents": 3, "method": "other"}
    assert CorpusOptions.of(settings) == CorpusOptions.of(SimpleNamespace(**settings)) == expected
    assert CorpusOptions.of({"kind": "preferences", "joiner": "\n"}) == CorpusOptions(kind="preferences", joiner="\n")


def test_pairs_that_differ_in_the_rejected_response_are_two_and_make_another_corpus(read):
    rows = [pair("a", "b"), pair("a", "c"), pair("a", "b")]
    corpus, other = read(rows, kind="preferences"), read([*rows[:1], pair("a", "d")], kind="preferences")
    assert [Dialogue.from_json(d.dialogue).rejected for d in corpus] == ["b", "c"]
    assert corpus.sources[0].skipped == {"duplicate": 1}
    assert [d.text for d in other] == [d.text for d in corpus]
    assert other.content_sha256 != corpus.content_sha256
    assert other.path != corpus.path


def test_both_responses_are_two_samples_each_with_its_own_text_and_dialogue(read):
    rows = [
        {"id": "a", "prompt": "Capital?", "chosen": "Oslo.", "rejected": "Bergen."},
        {"prompt": "Capital?", "chosen": "Oslo.", "rejected": "Rome."},
    ]
    corpus = read(rows, kind="preferences", responses="both")
    assert [(document.id, document.text) for document in corpus] == [
        ("a", "Capital?\n\nOslo."),
        ("a:rejected", "Capital?\n\nBergen."),
        ("memory:1:rejected", "Capital?\n\nRome."),
    ]
    dialogues = [Dialogue.from_json(document.dialogue) for document in corpus]
    assert [(each.response, each.rejected) for each in dialogues] == [
        ("Oslo.", None),
        ("Bergen.", None),
        ("Rome.", None),
    ]
    # The second pair's better response was read already.
    assert corpus.sources[0].skipped == {"duplicate": 1}
    assert [document.id for document in read(rows, kind="preferences")] == ["a", "memory:1"]
    instructions = [{"prompt": "Capital?", "completion": "Oslo."}]
    assert len(read(instructions, kind="instructions", responses="both")) == 1


def test_the_hash_of_texts_is_what_it_was_before_there_were_dialogues(read):
    parts = [b"memory:0", b"", b"A text.", b"b", b"T", b"Another."]
    by_hand = hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts))
    rows = [{"text": "A text."}, {"text": "Another.", "id": "b", "title": "T"}]
    assert read(rows).content_sha256 == by_hand.hexdigest()


def test_a_rejected_response_counts_for_the_limit(read):
    with pytest.raises(DataError, match="larger than max_document_mib"):
        read([pair("a", "b" * 3000)], kind="preferences", max_document_mib=2000 / 2**20)


@pytest.mark.parametrize(
    ("name", "kind", "rows", "repeated"),
    [("alpaca_en_demo.json", "instructions", 999, 14), ("dpo_en_demo.json", "preferences", 300, 5)],
)
def test_real_dialogues_are_all_read_and_only_the_repeated_left_out(shared_data, read, name, kind, rows, repeated):
    given = [dialogue_of(row, kind).to_json() for row in json.loads((shared_data / name).read_text())]
    corpus = read(shared_data / name, kind=kind)
    assert (len(given), corpus.sources[0].skipped) == (rows, {"duplicate": repeated})
    assert [d.dialogue for d in corpus] == list(dict.fromkeys(given))


def test_a_real_pair_word_for_word(shared_data):
    row = json.loads((shared_data / "dpo_en_demo.json").read_text())[0]
    asked, answered = row["conversations"][0]["value"], row["chosen"]["value"]
    expected = Dialogue((said("user", asked), said("assistant", answered)), row["rejected"]["value"])
    assert dialogue_of(row, "preferences") == expected
    assert plain_text(expected) == f"{asked}\n\n{answered}"
