"""The errors of the serving and training packages.

Every error that a user can cause derives from `MstkdError`. Its text names the input that was
wrong and the remedy; the command lines print that text without a traceback and exit with 2.

    MstkdError
    ├── ContractError      a contract is missing, malformed or contradicts another one
    ├── GraphError         an ONNX file cannot be made the served graph
    │   └── ParityError    two runs that must agree do not
    ├── EngineError        no usable inference runtime, or it refused the model
    ├── RepositoryError    a Triton model repository is incomplete or inconsistent
    ├── ServerError        tritonserver is missing, cannot start or gave up
    ├── DataError          faces, labels, scores or an artifact cannot be used
    └── RecipeError        a training recipe is malformed
"""


class MstkdError(Exception):
    """Base of all errors that name an input and its remedy."""


class ContractError(MstkdError):
    """A face contract is missing, malformed or contradicts another one."""


class GraphError(MstkdError):
    """An ONNX file cannot be made the served graph."""


class ParityError(GraphError):
    """Two runs that must give the same embeddings differ by more than the stated bound."""


class EngineError(MstkdError):
    """No usable inference runtime is installed, or it refused the model."""


class RepositoryError(MstkdError):
    """A Triton model repository is incomplete or inconsistent."""


class ServerError(MstkdError):
    """A tritonserver is missing, cannot start, or stopped by itself."""


class DataError(MstkdError):
    """Faces, labels, scores or an artifact cannot be used."""


class RecipeError(MstkdError):
    """A training recipe is malformed."""
