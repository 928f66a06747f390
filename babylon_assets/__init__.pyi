"""The public surface: what a scorer, an environment or a training backend of a user imports from `babylon_assets`."""

from .config.settings import (
    Settings as Settings,
)
from .config.settings import (
    load_settings as load_settings,
)
from .config.settings import (
    prepare_libraries as prepare_libraries,
)
from .definitions import build_definitions as build_definitions
from .domain.content_ids import content_id as content_id
from .domain.errors import (
    BabylonError as BabylonError,
)
from .domain.errors import (
    BaseModelRefused as BaseModelRefused,
)
from .domain.errors import (
    ChainConflict as ChainConflict,
)
from .domain.errors import (
    CorruptLedger as CorruptLedger,
)
from .domain.errors import (
    DatabaseUnavailable as DatabaseUnavailable,
)
from .domain.errors import (
    MissingDependency as MissingDependency,
)
from .domain.errors import (
    PermanentError as PermanentError,
)
from .domain.errors import (
    SettingsError as SettingsError,
)
from .domain.errors import (
    SourceError as SourceError,
)
from .domain.errors import (
    TrainingBusy as TrainingBusy,
)
from .domain.errors import (
    TransientError as TransientError,
)
from .domain.evaluations import PolicyEvaluation as PolicyEvaluation
from .domain.policies import Caller as Caller
from .domain.policies import Completion as Completion
from .domain.policies import Policy as Policy
from .domain.policy_comparison import ComparedPolicies as ComparedPolicies
from .domain.rewards import Scorer as Scorer
from .domain.scorers import scorer as scorer
from .domain.trajectories import (
    Message as Message,
)
from .domain.trajectories import (
    Quarantined as Quarantined,
)
from .domain.trajectories import (
    RawSample as RawSample,
)
from .domain.trajectories import (
    StepFacts as StepFacts,
)
from .domain.trajectories import (
    TrajectoryRecord as TrajectoryRecord,
)
from .domain.windows import Window as Window
from .domain.windows import WindowGrid as WindowGrid
from .environments.base import (
    AnswerReader as AnswerReader,
)
from .environments.base import (
    BaseEnvironment as BaseEnvironment,
)
from .environments.base import (
    Benchmark as Benchmark,
)
from .environments.base import (
    Connection as Connection,
)
from .environments.base import (
    Environment as Environment,
)
from .environments.base import (
    Presence as Presence,
)
from .environments.base import (
    RequestQueue as RequestQueue,
)
from .environments.base import (
    SnapshotBenchmark as SnapshotBenchmark,
)
from .environments.base import (
    SourceWindow as SourceWindow,
)
from .environments.base import (
    WriteBack as WriteBack,
)
from .environments.small_models import ModelRecipe as ModelRecipe
from .environments.small_models import make_small_model as make_small_model
from .evaluation.side_by_side import compare as compare
from .ledger.asset_frames import load as load
from .training.adapters import publish_checkpoint as publish_checkpoint
from .training.backend import (
    Attempt as Attempt,
)
from .training.backend import (
    Availability as Availability,
)
from .training.backend import (
    Capabilities as Capabilities,
)
from .training.backend import (
    CheckpointPlace as CheckpointPlace,
)
from .training.backend import (
    NothingToResume as NothingToResume,
)
from .training.backend import (
    TrainedCheckpoint as TrainedCheckpoint,
)
from .training.backend import (
    TrainingBackend as TrainingBackend,
)
from .training.backend import (
    TrainingRequest as TrainingRequest,
)
from .training.families import require_local as require_local
from .training.folders import checkpoint_folder as checkpoint_folder
from .training.folders import train_in_folder as train_in_folder

__all__: list[str]
