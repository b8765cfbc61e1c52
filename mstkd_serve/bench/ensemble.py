"""The ensemble mode, against its teachers run one after the other in process."""

from tritonclient.grpc import InferenceServerClient

from mstkd_serve.bench.engines import ratio
from mstkd_serve.bench.load import closed_loop
from mstkd_serve.bench.rounds import in_turn, seconds_per_call
from mstkd_serve.bench.session import BATCH, Session, bench_faces
from mstkd_serve.engine import Engine, OnnxRuntimeEngine, OpenVinoEngine
from mstkd_serve.repository import ENSEMBLE

_CALLERS = 2


def measure_ensemble(session: Session, client: InferenceServerClient) -> None:
    """Measure both in turn, the teachers in the engine that serves the ensemble."""
    faces, seconds = bench_faces(), session.effort.seconds
    served_by = session.served_by(ENSEMBLE)
    names = sorted(path.name for path in session.repository.glob("teacher_*"))
    teachers = [_open(session, name, served_by) for name in names]

    def one_after_the_other() -> float:
        return seconds_per_call(lambda: [teacher.run(faces) for teacher in teachers], seconds)

    def ensemble() -> float:
        load = closed_loop(client, ENSEMBLE, batch=BATCH, concurrency=_CALLERS, seconds=seconds)
        return BATCH / load.faces_per_second

    ways = {"ensemble": ensemble, "teachers in process": one_after_the_other}
    measured = in_turn(ways, session.effort.rounds, session.progress)
    session.claim(
        f"ensemble, {_CALLERS} callers, batch {BATCH}, against {len(names)} teachers one after "
        f"the other in process ({served_by})",
        ratio(measured["teachers in process"], measured["ensemble"]),
        0.9,
    )


def _open(session: Session, model: str, engine: str) -> Engine:
    if not engine.startswith("OpenVINO"):
        return OnnxRuntimeEngine(session.graph(model))
    return OpenVinoEngine(session.graph(model), "bf16" if engine.endswith("bf16") else "fp32")
