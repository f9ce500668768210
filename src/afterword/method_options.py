"""The settings of methods, each declared once: what it is, its bounds, and its help.

Views and objectives have them as fields. The settings of a run are made of the same declarations. Nothing is imported
here that takes time, so that --help needs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args


@dataclass(frozen=True)
class Option:
    """What a person is told of a setting of a method, and the bounds of its value."""

    help: str
    replay_help: str = ""
    """Of the same setting for the replay of general text; empty: a replay does not have it."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    from_the_start: bool = False
    """Whether results were always recorded with it. Those recorded before a later one came still count."""


Strategy = Annotated[
    Literal[
        "sentence",
        "middle",
        "uniform_sentence",
        "random_token",
        "uniform_token",
        "random_token_suffix",
        "all",
        "anchor",
    ],
    Option("How targets are drawn from a document.", from_the_start=True),
]
Targets = Annotated[int, Option("Targets drawn from a document (k).", at_least=1, from_the_start=True)]
SuffixTokens = Annotated[int, Option("Tokens of a random_token_suffix target.", at_least=2, from_the_start=True)]
Temperature = Annotated[
    float, Option("Temperature τ of the divergence.", "Temperature τ of the replay.", above=0, from_the_start=True)
]
Averaging = Annotated[
    Literal["document", "token"], Option("What weighs the same: every document, or every token.", from_the_start=True)
]
Join = Annotated[
    Literal["document", "authors"],
    Option("document: tokenise it once. authors: each sentence alone, as DiSC's authors do.", from_the_start=True),
]
Bos = Annotated[
    Literal["auto", "always", "never"],
    Option("Begin what is read with BOS. auto: as the tokenizer does.", from_the_start=True),
]
Alpha = Annotated[
    float,
    Option("Share of prediction beside self-distillation.", "As alpha, in a replay by swap.", at_least=0, at_most=1),
]
Direction = Annotated[
    Literal["forward", "reverse"],
    Option("Direction of the KL divergence in self-distillation.", "As direction, in a replay by swap."),
]
Swap = Annotated[
    bool,
    Option(
        "Where the teacher is wrong, exchange the logits of its first token and the gold one.",
        "As swap, in a replay by swap.",
    ),
]
Beta = Annotated[float, Option("Factor of the KL divergence beside prediction.", at_least=0)]
Floor = Annotated[float, Option("Smallest weight that a token can get.", at_least=0, at_most=1)]
Passages = Annotated[int, Option("Passages of a document that are trained in a pass; all, if left out.", at_least=1)]
ChunkTokens = Annotated[
    int, Option("A passage's loss is a mean over chunks of so many tokens, each a mean over its tokens.", at_least=1)
]
SkipTokens = Annotated[int, Option("First tokens of every passage that are not trained.", at_least=0)]
PieceTokens = Annotated[int, Option("Tokens of the pieces that documents are cut into, at most.", at_least=4)]
HiddenWeight = Annotated[
    float, Option("Factor of the distance between hidden states beside the divergence.", at_least=0)
]
ReplayWeight = Annotated[float, Option("Factor of the replay beside the loss of the documents.", at_least=0)]
ReplayDocuments = Annotated[float, Option("Factor of the replay on the documents themselves.", at_least=0)]
Rephrasings = Annotated[int, Option("Rewritings of a document that the model writes to each prompt.", at_least=1)]
Originals = Annotated[bool, Option("Train the documents themselves, too, beside what is written of them.")]
Continuations = Annotated[int, Option("Continuations of a document that the model writes.", at_least=1)]
OwnQuestions = Annotated[int, Option("Questions that the model asks itself of a document.", at_least=1)]
Answers = Annotated[int, Option("Answers that the model writes to each of its questions.", at_least=1)]
NewTokens = Annotated[int, Option("Most tokens of a text that the model writes.", at_least=1)]
SamplingTemperature = Annotated[
    float, Option("Temperature at which the model writes. 0: the likeliest token, always.", at_least=0)
]
TopP = Annotated[
    float, Option("Only the likeliest tokens are drawn, up to this probability together.", above=0, at_most=1)
]
ExpertShare = Annotated[
    float, Option("Share of tokens written with the document before them; the rest without.", at_least=0, at_most=1)
]
RefreshSteps = Annotated[int, Option("Steps after which the student writes its answers anew.", at_least=1)]
TeacherAverage = Annotated[
    float,
    Option(
        "Share of the student's weights that the teacher takes on after every step; 0: it stays as it was.",
        at_least=0,
        at_most=1,
    ),
]
StudyKind = Literal["rephrase", "questions", "summary", "implications", "links", "strategies"]
"""What a model can write about documents."""
KINDS: tuple[StudyKind, ...] = get_args(StudyKind)
Kinds = Annotated[tuple[StudyKind, ...], Option(f"Kinds of study text, of {', '.join(KINDS)}.")]
TokensPerToken = Annotated[
    float, Option("Tokens of study text for a token of a document, all kinds together.", above=0, at_most=1000)
]

OPTIONS: Mapping[str, object] = {
    "strategy": Strategy,
    "targets": Targets,
    "suffix_tokens": SuffixTokens,
    "temperature": Temperature,
    "averaging": Averaging,
    "join": Join,
    "bos": Bos,
    "alpha": Alpha,
    "direction": Direction,
    "swap": Swap,
    "beta": Beta,
    "floor": Floor,
    "passages": Passages,
    "chunk_tokens": ChunkTokens,
    "skip_tokens": SkipTokens,
    "piece_tokens": PieceTokens,
    "hidden_weight": HiddenWeight,
    "rephrasings": Rephrasings,
    "originals": Originals,
    "continuations": Continuations,
    "own_questions": OwnQuestions,
    "answers": Answers,
    "new_tokens": NewTokens,
    "sampling_temperature": SamplingTemperature,
    "top_p": TopP,
    "expert_share": ExpertShare,
    "refresh_steps": RefreshSteps,
    "teacher_average": TeacherAverage,
    "kinds": Kinds,
    "tokens_per_token": TokensPerToken,
}
"""By the names of the fields of views and objectives."""
REPLAY_OPTIONS: Mapping[str, object] = {"weight": ReplayWeight, "documents": ReplayDocuments}
"""Of a replay alone; it also has every option of its objective that has a `replay_help`."""
