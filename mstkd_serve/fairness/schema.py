"""What `metrics.json` holds.

Rates are fractions, accuracies percent. A figure that is undefined is null, never NaN or infinite.
"""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mstkd_serve.calibration import Probability
from mstkd_serve.errors import DataError
from mstkd_serve.files import atomic_path

SCHEMA_VERSION: Final = 1
FAR_TARGETS: Final = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")
"""Keys of `tar_at_far`."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class Interval(_Frozen):
    """A bootstrap interval, in the unit of its figure."""

    low: float
    high: float
    level: float = 0.95


class TarAtFar(_Frozen):
    """The true accept rate where the false accept rate is at most a target.

    Attributes:
        tar: Share of genuine pairs accepted.
        threshold: The lowest threshold with a FAR at most the target.
        far: The FAR at that threshold.
        supported: Whether the group has enough impostor pairs for the target to mean anything.
    """

    tar: float
    threshold: float
    far: float
    supported: bool


class OperatingPoint(_Frozen):
    """A group's rates at one threshold.

    Attributes:
        threshold: Pairs with a score at least this are accepted.
        accuracy: Percent decided rightly.
        fmr: Share of impostor pairs accepted.
        fnmr: Share of genuine pairs rejected.
    """

    threshold: float
    accuracy: float
    fmr: float
    fnmr: float


class Histogram(_Frozen):
    """Counts of scores; `edges` has one value more than the counts."""

    edges: tuple[float, ...]
    genuine: tuple[int, ...]
    impostor: tuple[int, ...]


class DetCurve(_Frozen):
    """Error rates over thresholds, ascending in threshold, at most 200 points."""

    threshold: tuple[float, ...]
    fmr: tuple[float, ...]
    fnmr: tuple[float, ...]


class GroupMetrics(_Frozen):
    """One group.

    Attributes:
        genuine: Number of genuine pairs.
        impostor: Number of impostor pairs.
        accuracy: Percent, at the global threshold.
        accuracy_10fold: Percent, LFW protocol: ten folds, the threshold chosen on the other nine.
        fmr: At the global threshold.
        fnmr: At the global threshold.
        false_matches: Number of impostor pairs accepted at the global threshold.
        tar_at_far: By target, keys of `FAR_TARGETS`; thresholds are the group's own.
        eer: Equal error rate.
        auc: Area under the ROC curve.
        d_prime: Distance of the two means in pooled standard deviations; null where both are 0.
        own: The group at its own best threshold.
        accuracy_interval: Of `accuracy`; null without bootstrap.
        fmr_interval: Of `fmr`; null without bootstrap.
        fnmr_interval: Of `fnmr`; null without bootstrap.
        histogram: Score counts.
        det: Detection error trade-off.
    """

    genuine: int
    impostor: int
    accuracy: float
    accuracy_10fold: float | None
    fmr: float
    fnmr: float
    false_matches: int
    tar_at_far: dict[str, TarAtFar]
    eer: float
    auc: float
    d_prime: float | None
    own: OperatingPoint
    accuracy_interval: Interval | None = None
    fmr_interval: Interval | None = None
    fnmr_interval: Interval | None = None
    histogram: Histogram
    det: DetCurve


class Spread(_Frozen):
    """How equally well groups fare under one threshold policy.

    Attributes:
        accuracy_mean: Mean of the groups' accuracies, percent.
        std: Standard deviation of the accuracies, percentage points; see `std_ddof`.
        ser: Largest error rate over smallest; null where one group has no error.
        eq_odds: Larger of the spreads of true and false match rate over groups.
        dem_par: Spread of the share of pairs accepted.
        fdr: Fairness discrepancy rate, 1 is fair.
        ir: Inequity rate, 1 is fair; null where a rate is 0.
        garbe: Gini aggregation rate, 0 is fair; null with one group.
        nist_fmr_max_geomean: Largest FMR over the geometric mean; null where a rate is 0.
        nist_fnmr_max_geomean: Largest FNMR over the geometric mean; null where a rate is 0.
        fmr_ratio_smoothed: Largest over smallest FMR, each (count + 0.5) / (pairs + 1).
        fnmr_ratio_smoothed: Largest over smallest FNMR, likewise.
    """

    accuracy_mean: float
    std: float
    ser: float | None
    eq_odds: float
    dem_par: float
    fdr: float
    ir: float | None
    garbe: float | None
    nist_fmr_max_geomean: float | None
    nist_fnmr_max_geomean: float | None
    fmr_ratio_smoothed: float
    fnmr_ratio_smoothed: float


class GlobalMetrics(Spread):
    """All groups at one global threshold, and beside it each at its own.

    Attributes:
        threshold: The global threshold.
        threshold_source: `best_mean_accuracy` (chosen on these pairs) or `given`.
        std_ddof: Delta degrees of freedom of `std`, 0 or 1.
        per_group_thresholds: The same summary with each group at its own best threshold.
        accuracy_mean_interval: Null without bootstrap.
        std_interval: Null without bootstrap.
    """

    threshold: float
    threshold_source: Literal["best_mean_accuracy", "given"]
    std_ddof: Literal[0, 1]
    per_group_thresholds: Spread
    accuracy_mean_interval: Interval | None = None
    std_interval: Interval | None = None


class CalibrationPoint(_Frozen):
    """Thresholds for one FMR target.

    Attributes:
        fmr: The target.
        threshold_pooled: Lowest threshold with a pooled FMR at most the target.
        threshold_worst_group: Lowest threshold at which every group's FMR is at most the target.
        supported: Whether every group has enough impostor pairs for the target.
        group_fmr: By group, at `threshold_worst_group`.
        group_fnmr: By group, at `threshold_worst_group`.
        pooled_group_fmr: By group, at `threshold_pooled`.
        pooled_group_fnmr: By group, at `threshold_pooled`.
    """

    fmr: float
    threshold_pooled: float
    threshold_worst_group: float
    supported: bool
    group_fmr: dict[str, float]
    group_fnmr: dict[str, float]
    pooled_group_fmr: dict[str, float]
    pooled_group_fnmr: dict[str, float]


class ModelDescription(_Frozen):
    """Which model was measured, as far as it is known."""

    name: str | None = None
    contract_id: str | None = None


class DataDescription(_Frozen):
    """What was measured on.

    Attributes:
        source: Name of the scores or of the list.
        pairs: Number of pairs, those across groups included.
        groups: Number of groups.
        identities: Number of identities; null where they are not known of every face.
        folds: Whether the folds of `accuracy_10fold` were given with the pairs or are contiguous
            parts of them; null where there are none.
    """

    source: str
    pairs: int
    groups: int
    identities: int | None = None
    folds: Literal["given", "contiguous"] | None = None


class Caution(_Frozen):
    """Something a reader must know before trusting a figure."""

    code: str
    message: str
    group: str | None = None
    severity: Literal["note", "serious"] = "note"


class Metrics(_Frozen):
    """The whole file.

    Attributes:
        groups: By group name, sorted.
        summary: Over the groups; its key in JSON is `global`.
        cross_group_fmr: FMR at the global threshold of impostor pairs across two groups, by
            `A|B`; empty where none were given.
        subgroups: The operating point of `group/subgroup` at the global threshold.
        calibration: Thresholds at FMR targets.
        probability: Score to probability of "same identity"; null where it was not fitted.
        warnings: The most serious first.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelDescription = ModelDescription()
    data: DataDescription
    groups: dict[str, GroupMetrics]
    summary: GlobalMetrics = Field(alias="global")
    cross_group_fmr: dict[str, float] = {}
    subgroups: dict[str, OperatingPoint] = {}
    calibration: tuple[CalibrationPoint, ...] = ()
    probability: Probability | None = None
    warnings: tuple[Caution, ...] = ()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with atomic_path(path) as temporary:
            text = self.model_dump_json(by_alias=True, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            DataError: It is missing, or not a metrics file of this version.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}).") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"{path}: not a metrics file of this version ({place}: {first['msg']}). "
                "Write it anew with 'mstkd-serve evaluate'."
            ) from error
