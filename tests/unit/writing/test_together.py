"""Prompts in groups: by hand, and against every way there is for few prompts."""

import itertools
import random

from afterword.writing.together import Alike, alike, batches


def shared(prompts, rows):
    """Tokens that the rows begin with alike, without the last of any."""
    first = zip(*(prompts[row][:-1] for row in rows), strict=False)
    return len(list(itertools.takewhile(lambda tokens: len(set(tokens)) == 1, first)))


def saved(prompts, groups):
    return sum((len(rows) - 1) * shared(prompts, rows) for rows in groups if len(rows) > 1)


def test_documents_are_kept_apart_although_all_begin_with_the_same_words():
    system, one, other = [1] * 3, [2] * 9, [3] * 9
    prompts = [[*system, *one, 5], [*system, *other, 5], [*system, *one, 6], [*system, *other, 6, 7], [9, 9]]
    assert alike(prompts, least=2) == [Alike(12, (0, 2)), Alike(12, (1, 3)), Alike(0, (4,))]
    assert alike(prompts, least=13) == [Alike(0, (row,)) for row in (0, 2, 1, 3, 4)]


def test_the_same_prompt_twice_keeps_a_token_of_its_own():
    assert alike([[1, 2, 3], [1, 2, 3]], least=1) == [Alike(2, (0, 1))]
    assert alike([], least=1) == []


def test_no_grouping_of_neighbours_saves_more():
    draw = random.Random(0)
    for _ in range(200):
        prompts = [[draw.randint(0, 1) for _ in range(draw.randint(1, 7))] for _ in range(6)]
        order = sorted(range(6), key=prompts.__getitem__)
        every = [
            [order[a:b] for a, b in itertools.pairwise([0, *cuts, 6])]
            for count in range(6)
            for cuts in itertools.combinations(range(1, 6), count)
        ]
        found = alike(prompts, least=1)
        assert sorted(row for group in found for row in group.rows) == list(range(6))
        assert all(group.shared == shared(prompts, group.rows) for group in found if group.shared)
        assert saved(prompts, [group.rows for group in found]) == max(saved(prompts, groups) for groups in every)


def test_a_batch_has_room_for_its_longest_prompt_and_the_new_tokens():
    draw = random.Random(0)
    prompts = [[row % 7] * draw.randint(70, 90) + [row] for row in range(50)]
    for sharing in (True, False):
        found = batches(prompts, 20, 700, sharing=sharing)
        assert sorted(row for batch in found for row in batch) == list(range(50))
        assert all(len(batch) * (max(len(prompts[row]) for row in batch) + 20) <= 700 for batch in found)
    assert batches(prompts, 20, 0, sharing=False) == [[row] for (row,) in batches(prompts, 20, 0, sharing=False)]
