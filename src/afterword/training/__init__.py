"""Training: the trainer, and one run from settings to a finished folder."""

from afterword.processes import is_main_process
from afterword.training.adapting import RunResult, quiet_libraries, run_adaptation
from afterword.training.arguments import training_arguments
from afterword.training.checkpoints import Interrupted
from afterword.training.estimating import DryRun, dry_run
from afterword.training.run_folder import RunFolder
from afterword.training.trainer import AdaptationTrainer
