"""The calibrated decision that travels with a model, from its evaluation to the client.

`mstkd_serve.fairness` computes it, `mstkd-serve calibrate` writes it into the ONNX metadata, the
model repository copies it into the Triton config, and clients answer with it.
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mstkd_serve.errors import ContractError

CALIBRATION_KEY: Final = "mstkd.calibration"
"""Key of the calibration's JSON in ONNX metadata and in the `parameters` of a Triton config."""


class Probability(BaseModel):
    """Score to probability of "same identity": `1 / (1 + exp(-(slope * score + intercept)))`.

    Fitted with genuine and impostor pairs weighing the same (a prior of one half).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slope: float
    intercept: float


class Calibration(BaseModel):
    """A threshold, and what it stands for.

    Attributes:
        threshold: Pairs with a cosine score of at least this are accepted.
        fmr: The false match rate that the threshold was chosen for.
        policy: `worst_group`: no group exceeds `fmr`; `pooled`: all pairs together do not.
        group_fmr: Measured FMR of each group at the threshold.
        group_fnmr: Measured FNMR of each group at the threshold.
        data: What it was measured on.
        pairs: Number of pairs it was measured on.
        contract_id: Id of the face contract of the model it belongs to.
        probability: Score to probability, where it was fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float
    fmr: float = Field(gt=0, lt=1)
    policy: Literal["worst_group", "pooled"]
    group_fmr: dict[str, float]
    group_fnmr: dict[str, float]
    data: str
    pairs: int
    contract_id: str
    probability: Probability | None = None

    def metadata(self) -> dict[str, str]:
        """Return the calibration as a string pair for ONNX metadata or a Triton config."""
        return {CALIBRATION_KEY: self.model_dump_json()}

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, str], *, contract_id: str, source: str
    ) -> Self | None:
        """Read a calibration back.

        Args:
            metadata: ONNX metadata or the parameters of a Triton config.
            contract_id: Id of the contract beside it.
            source: Name of where they came from, for error messages.

        Returns:
            The calibration, or None where there is none.

        Raises:
            ContractError: It is malformed or belongs to another contract.
        """
        text = metadata.get(CALIBRATION_KEY)
        if text is None:
            return None
        try:
            calibration = cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(
                f"{source}: its calibration is malformed. Calibrate the model again."
            ) from error
        if calibration.contract_id != contract_id:
            raise ContractError(
                f"{source}: its calibration belongs to contract {calibration.contract_id}, the "
                f"model has {contract_id}. Calibrate the model again."
            )
        return calibration
