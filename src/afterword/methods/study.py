"""Study: the model writes about each document in several ways, and is taught what it wrote, beside the document.

Kinds, prompts and what is dropped are those of `afterword study` (study/), and so is what is written. The kinds follow
EntiGraph (Yang et al. 2024, arXiv:2409.07431) and Active Reading (Lin et al. 2025, arXiv:2508.09494), which fine-tune
on such text: alpha = 1. Below that the student also moves toward the model that has the document before the text.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from afterword.data import Prompted, as_words
from afterword.data.views import Writer
from afterword.method_options import KINDS, Kinds, NewTokens, Originals, SamplingTemperature, TokensPerToken, TopP
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.written import with_passages
from afterword.objectives import SelfDistillation
from afterword.study.plan import NEW_TOKENS, TEMPERATURE, TOKENS_PER_TOKEN, TOP_P, Part, StudyPlan
from afterword.types import Document, Passage, Sampling


@dataclass(frozen=True, kw_only=True)
class Studied(Prompted):
    """The texts about a document, and the document itself, as passages; the teacher has the document before each.

    A long document is several, each the part that its texts were written from.
    """

    kinds: Kinds = KINDS
    tokens_per_token: TokensPerToken = TOKENS_PER_TOKEN
    originals: Originals = True
    new_tokens: NewTokens = NEW_TOKENS
    sampling_temperature: SamplingTemperature = TEMPERATURE
    top_p: TopP = TOP_P

    def plan(self) -> StudyPlan:
        """The same as that of the command with these settings, so that neither writes what the other has written."""
        drawn = {"temperature": self.sampling_temperature, "top_p": self.top_p}
        sampling = Sampling(max_new_tokens=self.new_tokens, **drawn)
        return StudyPlan(amounts=StudyPlan.equal_parts(self.kinds, self.tokens_per_token), sampling=sampling)

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document, or part of a long one, with its own text and those about it as passages."""
        from afterword.study.rounds import parts_of, study_text

        given, plan = list(documents), self.plan()
        about, study = defaultdict[Part, list[str]](list), study_text(writer, given, plan)
        for piece in study.pieces:
            about[piece.part].append(piece.text)
        dropped = sum(sum(count.dropped.values()) for count in study.counts.values())
        said = "%d texts about the documents are taught; %d were dropped."
        logging.getLogger("afterword").warning(said, len(study.pieces), dropped)
        for document in given:
            parts = parts_of(document, writer, plan)
            for number, part in enumerate(parts, start=1):
                name = document.id if len(parts) == 1 else f"{document.id}/part/{number}"
                texts = [part.text] if self.originals else []
                before = f"{as_words(writer.tokenizer, part.shown)}\n\n"
                passages = [Passage(text, teacher_before=before, ended=True) for text in [*texts, *about[part]]]
                yield with_passages(replace(document, id=name, text=part.text), passages)


METHOD = Method(
    name="study",
    summary="Predict what the model itself writes about the documents in several ways, beside the documents.",
    paper="https://arxiv.org/abs/2508.09494",
    view=Studied(averaging="document"),
    objective=SelfDistillation(alpha=1.0, swap=False),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="Kinds, prompts, amounts and optimizer are ours, after EntiGraph and Active Reading, whose texts larger "
    "models wrote; alpha below 1 is ours.",
)
