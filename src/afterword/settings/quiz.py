"""Settings of `afterword quiz`, checked before anything runs."""

from collections.abc import Iterator

from afterword.settings.base import Settings, setting
from afterword.settings.workers import GPUS_EACH, PROCESSES, RAY, RETRIES, ray_problems, workers_of
from afterword.settings.writing import GENERATOR, GENERATOR_MODEL, GENERATOR_REQUESTS, WRITTEN_FOLDER, writing_problems


class QuizSettings(Settings):
    """Everything that `afterword quiz` can be told."""

    model_name_or_path: str = setting("", "What", "Model that is to be asked, and that writes unless another does.")
    documents: tuple[str, ...] = setting((), "What", "Files, folders, globs or data-set ids to ask about.")
    output: str = setting("", "What", "JSON-lines file of the suite; the other files go beside it.")
    max_documents: int | None = setting(None, "What", "Most documents that are read.", ge=1)
    language: str = setting("en", "What", "Language code, by which sentences are found.")

    per_document: int = setting(4, "How much", "Most answers of a document that get into the quiz.", ge=1)
    wordings: int = setting(2, "How much", "Questions kept for each answer, each in words of its own.", ge=2)
    tries: int = setting(10, "How much", "Most answers that are tried in a document.", ge=1)
    drafts: int = setting(1, "How much", "Questions drafted with each beginning; a kind of answer has two.", ge=1)
    own_questions: int = setting(0, "How much", "Questions that the model chooses itself in an excerpt.", ge=0)
    gaps: bool = setting(True, "How much", "Where a second question is lacking, show the sentence with a gap instead.")
    excerpt_words: int = setting(300, "How much", "Words of a longer document that are read at a time.", ge=20)

    samples: int = setting(3, "Filters", "Times that each question is answered, with the text and without it.", ge=1)
    agree: int = setting(2, "Filters", "Of these, how many must say the answer when the text is read.", ge=1)
    may_know: int = setting(0, "Filters", "Of these, how many may say the answer without the text.", ge=0)
    temperature: float = setting(0.3, "Filters", "Temperature of the samples.", gt=0)
    seed: int = setting(0, "Filters", "Seed: which answers are tried, wrong choices, dev and test.", ge=0)

    generator: str | None = GENERATOR
    generator_model: str | None = GENERATOR_MODEL
    generator_requests: int = GENERATOR_REQUESTS
    written_folder: str | None = WRITTEN_FOLDER
    processes: int | None = PROCESSES
    ray: str | None = RAY
    gpus_each: float | None = GPUS_EACH
    retries: int = RETRIES

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        for name in ("model_name_or_path", "documents", "output"):
            if not getattr(self, name):
                yield f"{name}: missing, and it has no default. Give it on the command line."
        for name in ("agree", "may_know"):
            if getattr(self, name) > self.samples:
                yield f"{name}: {getattr(self, name)} of {self.samples} samples cannot be. Lower it, or raise samples."
        yield from ray_problems(self)
        yield from writing_problems(self.generator, self.generator_model, workers_of(self))
