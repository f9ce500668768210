"""Training: the trainer, and one run from settings to a finished folder."""

from afterword.distributed import is_main_process
from afterword.models import quiet_libraries
from afterword.training.arguments import training_arguments
from afterword.training.checkpoints import Interrupted
from afterword.training.dry_run import DryRun, dry_run
from afterword.training.finish import push
from afterword.training.reference import reference_weights
from afterword.training.run import RunResult, load_trainer, run_adaptation, used_settings
from afterword.training.run_folder import RunFolder
from afterword.training.sharding import refuse_before_loading, sharded_by
from afterword.training.trainer import AdaptationTrainer

__all__ = [
    "AdaptationTrainer",
    "DryRun",
    "Interrupted",
    "RunFolder",
    "RunResult",
    "dry_run",
    "is_main_process",
    "load_trainer",
    "push",
    "quiet_libraries",
    "reference_weights",
    "refuse_before_loading",
    "run_adaptation",
    "sharded_by",
    "training_arguments",
    "used_settings",
]
