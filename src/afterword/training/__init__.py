"""Training: the trainer, and one run from settings to a finished folder."""

from afterword.processes import is_main_process
from afterword.training.adapting import (
    RunResult,
    load_trainer,
    quiet_libraries,
    resolved_precision,
    run_adaptation,
    used_settings,
)
from afterword.training.arguments import training_arguments
from afterword.training.checkpoints import Interrupted
from afterword.training.estimating import DryRun, dry_run
from afterword.training.finishing import push
from afterword.training.run_folder import RunFolder
from afterword.training.sharding import refuse_before_loading, sharded_by
from afterword.training.trainer import AdaptationTrainer
