"""What a run of a name begins with: nothing, or the training state of the run before it."""
from __future__ import annotations

from argparse import Namespace

from options import RESUME_ALWAYS
from training_states import TrainingStates
from utils import DataError, UsageError

# They say how or for how long a run works; every other flag says what it learns. (Its lists are
# compared by what they hold, wherever --split finds them.)
MAY_CHANGE = frozenset({
    "data_path", "log_dir", "model_name", "num_epochs", "num_workers", "no_cuda", "compile",
    "cache_dir", "profile", "log_frequency", "save_frequency", "save_every", "keep", "resume",
    "overwrite", "max_bad_samples", "seed", "deterministic", "weights_init", "load_weights_folder",
    "models_to_load", "split"})


def state_to_resume(opts: Namespace, states: TrainingStates, processes: int) -> dict | None:
    """Return the training state that a run begins with, None where it begins anew.

    Args:
        opts: of the run.
        states: of the runs of its name.
        processes: of the run.

    Raises:
        UsageError: there is a run of this name, and no flag says what shall become of it; or it is
            another run than these flags ask for.
        DataError: there is nothing to resume, or it is broken.
    """
    if opts.resume is None:
        if states.run_exists() and not opts.overwrite:
            raise UsageError(f"{states.folder} has a run of this name already; go on with it "
                             "(--resume), delete it (--overwrite), or choose another --model_name")
        return None
    state = states.load()
    if state is None and (opts.resume == RESUME_ALWAYS or states.run_exists()):
        raise DataError(f"{states.folder} has no training_state_<step>.pth to go on from; leave "
                        "--resume out, or check --log_dir and --model_name")
    if state is not None:
        _check_same_run(opts, state, processes, states)
    return state


def _check_same_run(opts: Namespace, state: dict, processes: int, states: TrainingStates) -> None:
    before, now = state["options"], vars(opts)
    changed = [f"--{name} was {before[name]}, is {now[name]}" for name in before
               if name in now and name not in MAY_CHANGE and before[name] != now[name]]
    if opts.seed not in (None, state["seed"]):
        changed.append(f"--seed was {state['seed']}, is {opts.seed}")
    if processes != state["processes"]:
        changed.append(f"processes were {state['processes']}, are {processes}")
    if changed:
        raise UsageError(f"the run in {states.folder} is another one: {'; '.join(changed)}; give "
                         "the same flags, choose another --model_name, or --overwrite that run, "
                         "without --resume")
