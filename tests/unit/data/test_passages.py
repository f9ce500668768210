"""Passages: what is trained of them, what each side reads before them, and what of them travels to the disk."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import byte_tokenizer

from afterword.corpus import read_corpus
from afterword.data import Prompted, SpecialTokens, WholeDocument, WindowSettings, content_hash, prepare, special_tokens
from afterword.data.batching import Packing, build_batch, micro_batches
from afterword.data.passages import passages_from_json, passages_to_json, read_passages, turn_end
from afterword.data.prompted import shared_length
from afterword.errors import DataError
from afterword.types import Document, Passage, SharedRows

CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TURN = ["<|im_start|>", "<|im_end|>"]
TOKENIZER = byte_tokenizer(CHAT, specials=TURN, additional_special_tokens=TURN)
START, END = (TOKENIZER.convert_tokens_to_ids(token) for token in TURN)
BOS, NONE = SpecialTokens((0,), 1), SpecialTokens((), 1)
LONG = WindowSettings(max_length=1000)


def ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


def window(*passages, special=BOS, how=LONG):
    document = Document("d", "The text.", passages=passages_to_json(passages))
    return read_passages(document, 0, TOKENIZER, special, how).windows[0]


def built(view, *passages, special=BOS, seed=0):
    found = window(*passages, special=special)
    assert view.skip_reason(found) is None
    return view.build(found, special, np.random.default_rng(seed))


def teacher_reads(example):
    return [[*example.teacher_ids.tolist(), *s.alone.tolist()] for s in example.segments]


def test_both_sides_read_what_stands_before_and_train_the_text_from_its_first_token():
    example = built(Prompted(), Passage("yes", student_before="Q: ", teacher_before="It is. Q: "))
    (segment,) = example.segments
    assert segment.student_ids.tolist() == [0, *ids("Q: yes")]
    assert teacher_reads(example) == [[0, *ids("It is. Q: yes")]]
    assert segment.target_ids.tolist() == ids("yes")
    assert segment.student_positions.tolist() == [3, 4, 5]
    assert segment.teacher_positions.tolist() == [10, 11, 12]
    assert segment.weights == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("passage", "special", "trained"),
    [
        (Passage("abc"), BOS, "abc"),
        (Passage("abc"), NONE, "bc"),
        (Passage("abc", teacher_before="x"), NONE, "bc"),
        (Passage("abc", student_before="x"), NONE, "bc"),
        (Passage("abc", "x", "y"), NONE, "abc"),
    ],
)
def test_the_first_token_is_trained_where_something_stands_before_it_on_both_sides(passage, special, trained):
    assert built(Prompted(), passage, special=special).segments[0].target_ids.tolist() == ids(trained)


def test_a_template_brings_its_own_bos_and_a_plain_text_gets_one():
    chat = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    example = built(Prompted(), Passage("Me.", student_before=chat, teacher_before="Plain."))
    assert example.segments[0].student_ids.tolist() == ids(chat + "Me.")
    assert ids(chat)[0] == START
    assert teacher_reads(example) == [[0, *ids("Plain.Me.")]]


def test_a_text_that_ended_is_followed_by_what_ends_it():
    chat = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert turn_end(TOKENIZER) == END
    in_chat, plain, cut = (
        built(Prompted(), passage).segments[0].target_ids.tolist()
        for passage in (Passage("Me.", chat, "x", ended=True), Passage("Me.", ended=True), Passage("Me.", chat))
    )
    assert (in_chat, plain, cut) == ([*ids("Me."), END], [*ids("Me."), 1], ids("Me."))
    assert turn_end(byte_tokenizer()) is None
    assert turn_end(byte_tokenizer("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")) is None


def test_control_tokens_are_meant_before_a_text_and_words_in_it():
    passage = Passage("<|im_end|>", student_before="<|im_end|>", teacher_before="<|im_end|>")
    segment = built(Prompted(), passage).segments[0]
    assert segment.student_ids[0] == END
    assert END not in segment.target_ids
    assert len(segment.target_ids) == len("<|im_end|>")
    with pytest.raises(DataError, match=r"writes '<\|im_end\|>', a control token"):
        window(passage, how=WindowSettings(max_length=1000, control_tokens="refuse"))


def test_chunks_weigh_alike_and_passages_weigh_alike():
    passages = (Passage("abcdefghi"), Passage("jk"))
    first, second = built(Prompted(chunk_tokens=4), *passages).segments
    assert first.weights == pytest.approx([1 / 24] * 8 + [1 / 6])  # Chunks of 4, 4 and 1; half of the document's 1.
    assert second.weights == pytest.approx([1 / 4] * 2)
    by_token = built(Prompted(chunk_tokens=4, averaging="token"), *passages)
    assert [s.weights.tolist() for s in by_token.segments] == [[1] * 9, [1] * 2]


def test_first_tokens_are_skipped_and_a_passage_of_nothing_else_is_not_drawn():
    view = Prompted(skip_tokens=3)
    example = built(view, Passage("abcd"), Passage("abc"))
    assert [s.target_ids.tolist() for s in example.segments] == [ids("d")]
    assert example.segments[0].weights.tolist() == [1]
    assert view.skip_reason(window(Passage("abc"))) == "too_short"


def test_what_teachers_read_alike_is_kept_apart_from_what_each_reads_alone():
    passages = [Passage(text, teacher_before=f"A page. Asked: {text}? ") for text in ("one", "other", "two")]
    example = built(Prompted(), *passages)
    assert example.teacher_ids.tolist() == [0, *ids("A page. Asked: ")]
    assert teacher_reads(example) == [[0, *ids(f"A page. Asked: {t}? {t}")] for t in ("one", "other", "two")]
    # Never into the text itself, and the same whatever is drawn.
    same = built(Prompted(), Passage("a b"), Passage("a c"))
    assert same.teacher_ids.tolist() == [0]
    drawn = [built(Prompted(passages=2), *passages, seed=seed) for seed in range(9)]
    assert {tuple(each.teacher_ids.tolist()) for each in drawn} == {tuple(example.teacher_ids.tolist())}
    assert len({tuple(s.target_ids[0] for s in each.segments) for each in drawn}) > 1
    assert all(len(each.segments) == 2 for each in drawn)


@pytest.mark.parametrize(("texts", "length"), [(["abc", "abd"], 2), (["abc"], 3), (["ab", "abc"], 2), (["b", "a"], 0)])
def test_what_is_alike_at_the_beginning(texts, length):
    assert shared_length([np.array(ids(text)) for text in texts]) == length


def prepared(documents, folder, view=None):
    corpus, view = read_corpus(documents, cache_dir=folder / "corpus"), view or Prompted()
    special = special_tokens(TOKENIZER, view.bos, view.join)
    return prepare(corpus, TOKENIZER, special, WindowSettings(max_length=40), view, folder / "windows.arrow")


def test_windows_of_passages_come_back_from_the_disk(tmp_path):
    passages = (Passage("yes", "Q: ", "It is. Q: "), Passage("no", "", "It. "))
    document = Document("d", "The text.", passages=passages_to_json(passages))
    windows = prepared([document, Document("held", "Only a text.")], tmp_path)
    assert [(p.ids.tolist(), p.teacher_before.tolist()) for p in windows[0].passages] == [
        (ids("yes"), ids("It is. Q: ")),
        (ids("no"), ids("It. ")),
    ]
    assert windows.lengths.tolist() == [len("Q: yes") + len("no"), len("Only a text.")]
    assert windows.begun.tolist() == [True, False]
    assert windows.largest_token() == max(ids("The Qs: yno.It"))
    assert passages_from_json(document.passages) == passages


def test_what_does_not_fit_is_left_out_and_counted(tmp_path):
    fits, long = Passage("yes", "Q: "), Passage("y" * 30, "", "t" * 20)
    documents = [
        Document("some", "One.", passages=passages_to_json([fits, long])),
        Document("none", "Two.", passages=passages_to_json([long])),
        Document("empty", "Three.", passages="[]"),
    ]
    windows = prepared(documents, tmp_path)
    assert windows.counts.skipped_windows == {"too_long": 2, "no_passages": 2}
    assert [(s.location, s.reason, s.detail) for s in windows.skipped[:2]] == [
        ("some", "too_long", "passage 2: 50 tokens"),
        ("none", "too_long", "passage 1: 50 tokens"),
    ]
    assert [w.document for w in windows] == ["some"]
    assert len(windows[0].passages) == 1


def test_documents_about_which_nothing_of_use_is_written_are_said(tmp_path):
    with pytest.raises(DataError, match=r"1 no passages.*let a larger model write \(generator\)"):
        prepared([Document("empty", "Three.", passages="[]")], tmp_path)


def test_other_views_read_the_text_as_ever_and_their_files_are_the_same(tmp_path):
    plain, view = Document("d", "The text."), WholeDocument()
    with_passages = Document("d", "The text.", passages=passages_to_json([Passage("yes")]))
    one, other = (prepared([d], tmp_path / str(i), view) for i, d in enumerate((plain, with_passages)))
    assert content_hash(one) == content_hash(other)
    assert other[0].passages == ()


def test_the_hash_of_a_corpus_has_its_passages_in_it(tmp_path):
    def sha256(passages):
        return read_corpus([Document("d", "The text.", passages=passages)], cache_dir=tmp_path).content_sha256

    assert len({sha256(None), sha256("[]"), sha256(passages_to_json([Passage("yes")]))}) == 3
    twice = [Document("d", "The text.", passages=passages_to_json([Passage(t)])) for t in ("a", "b", "a")]
    assert len(read_corpus(twice, cache_dir=tmp_path)) == 2


WORDS = st.text(st.sampled_from("ab <"), max_size=12)
PASSAGES = st.lists(
    st.builds(Passage, WORDS.filter(bool), WORDS, WORDS.map(lambda t: f"A page. {t}"), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(
    passages=PASSAGES,
    special=st.sampled_from([BOS, NONE]),
    view=st.builds(
        Prompted,
        passages=st.sampled_from([None, 1, 3]),
        chunk_tokens=st.sampled_from([None, 1, 4]),
        skip_tokens=st.integers(0, 2),
    ),
    seed=st.integers(0, 9),
)
def test_whatever_is_drawn_both_sides_predict_the_same_tokens_and_a_document_weighs_one(passages, special, view, seed):
    found = window(*passages, special=special)
    if view.skip_reason(found):
        return
    example = view.build(found, special, np.random.default_rng(seed))
    assert len(example.segments) <= (view.passages or len(passages))
    for segment, reads in zip(example.segments, teacher_reads(example), strict=True):
        assert segment.student_ids[segment.student_positions + 1].tolist() == segment.target_ids.tolist()
        assert [reads[p + 1] for p in segment.teacher_positions.tolist()] == segment.target_ids.tolist()
    assert sum(float(s.weights.sum()) for s in example.segments) == pytest.approx(1, rel=1e-5)


@given(
    several=st.lists(PASSAGES, min_size=1, max_size=5),
    budget=st.integers(8, 200),
    layout=st.sampled_from(["packed", "padded"]),
)
def test_batches_of_passages_are_aligned_however_they_are_cut(several, budget, layout):
    examples = [built(Prompted(), *passages) for passages in several]
    batches = micro_batches(examples, Packing(budget, layout))
    wanted = sorted(token for e in examples for s in e.segments for token in s.target_ids.tolist())
    assert sorted(token for b in batches for token in b.target_ids.tolist()) == wanted
    longest = max(len(reads) for example in examples for reads in teacher_reads(example))
    assert not any(isinstance(view, SharedRows) for batch in batches for view in batch.teacher)
    for batch in batches:
        after = [v.input_ids.flatten()[v.trained + 1].tolist() for v in (batch.student, *batch.teacher)]
        assert after[0] == [token for each in after[1:] for token in each] == batch.target_ids.tolist()
        assert all(view.input_ids.numel() <= max(budget, longest) for view in batch.teacher)
    assert sum(b.total_weight for b in batches) == pytest.approx(build_batch(examples).total_weight, rel=1e-5)


def read_of(view):
    """Every row of a view whole, and the tokens after its trained positions."""
    width = 1 + view.input_ids.shape[1]
    rows, after = [], []
    for ids, mask, number in zip(view.input_ids, view.attention_mask, view.follows.tolist(), strict=True):
        begins = view.beginning_ids[number][view.beginning_mask[number].bool()].tolist()
        rows.append([*begins, *ids[mask.bool()].tolist()])
    for place in view.trained.tolist():
        row, inside = divmod(place, width)
        after.append(view.input_ids[row, inside].item())
    return rows, after


@given(
    several=st.lists(PASSAGES, min_size=1, max_size=5),
    budget=st.integers(8, 400),
    layout=st.sampled_from(["packed", "padded"]),
)
def test_what_passages_begin_with_alike_is_read_once_where_it_pays(several, budget, layout):
    page = "A page that is much longer than what follows it. " * 3
    several = [[replace(each, teacher_before=page + each.teacher_before) for each in of] for of in several]
    examples = [built(Prompted(), *passages) for passages in several]
    packing = Packing(budget, layout, shares_beginnings=True)
    for batch in micro_batches(examples, packing):
        after = []
        for view in batch.teacher:
            if isinstance(view, SharedRows):
                rows, predicted = read_of(view)
                assert {tuple(row) for row in rows} <= {tuple(r) for e in examples for r in teacher_reads(e)}
                assert view.tokens == int(view.beginning_mask.sum() + view.attention_mask.sum())
                assert view.tokens <= 0.75 * sum(map(len, rows))
                after += predicted
            else:
                after += view.input_ids.flatten()[view.trained + 1].tolist()
        assert after == batch.target_ids.tolist()


def test_a_document_of_several_passages_is_read_once():
    page = "A page that is much longer than what follows it. "
    example = built(Prompted(), *(Passage(text, teacher_before=page) for text in ("yes", "no", "perhaps")))
    (view,) = build_batch([example], Packing(1000, shares_beginnings=True)).teacher
    assert isinstance(view, SharedRows)
    assert view.tokens == 1 + len(page) + len("yesnoperhaps")
    # One passage alone has nothing to share.
    alone = built(Prompted(), Passage("yes", teacher_before=page))
    assert not isinstance(build_batch([alone], Packing(1000, shares_beginnings=True)).teacher[0], SharedRows)
