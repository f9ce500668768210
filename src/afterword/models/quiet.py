"""What libraries say while they work: off, but for what a person can act on.

Here and not with training, whose libraries take seconds to import and are not those of who only reads a model.
"""

import warnings


def quiet_libraries() -> None:
    """Only warnings that a person can act on: progress bars and notices of the libraries are off."""
    import datasets  # pyright: ignore[reportMissingTypeStubs]  (it has none)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", module="torch|accelerate|transformers")
