"""Rehearsal: documents are learned by heart, while the student says again what it always said on text of its own.

The model that is taught writes exchanges before training, and on these the student is held to what it said of them
before it learned anything. No general data is needed. Ours, of known parts: rehearsal of text that the model made is
that of arXiv:2403.01244, there by cross-entropy; distillation from the model as it was is that of arXiv:1606.09282.
"""

from afterword.data import WholeDocument
from afterword.methods.method import REPLAYS, Method, Replay
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import Prediction

METHOD = Method(
    name="rehearse",
    summary="Predict the documents; on text that the model wrote itself before, stay near the model as it was.",
    paper="",
    view=WholeDocument(),
    objective=Prediction(),
    replay=Replay(objective=REPLAYS["kl"]),
    own_samples=0.25,
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="Ours, in no paper. General text of a mixture takes the place of the model's own.",
)
