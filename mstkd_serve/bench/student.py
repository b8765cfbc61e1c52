"""The student: in-process engines against the peer, and the served path against its own engine."""

from collections.abc import Callable

from tritonclient.grpc import InferenceServerClient

from mstkd_serve.bench.engines import PEER, open_engines, ratio, speeds
from mstkd_serve.bench.load import closed_loop
from mstkd_serve.bench.peers import arcface_onnx
from mstkd_serve.bench.rounds import in_turn, seconds_per_call
from mstkd_serve.bench.session import BATCH, Session, bench_faces
from mstkd_serve.errors import EngineError
from mstkd_serve.graph import is_served_file
from mstkd_serve.repository import STUDENT

_CALLERS = f"served, {BATCH} callers of one face"
_BATCHES = f"served, batch {BATCH}"
_LONE = "served, a lone caller of one face"


def measure_student(session: Session, client: InferenceServerClient) -> None:
    """Measure every engine and the served path in turn, and claim what the ratios show."""
    report, seconds, faces = session.report, session.effort.seconds, bench_faces()
    engines = open_engines(session.graph(STUDENT), session.subject.also, report.notes)
    if is_served_file(session.subject.student):
        report.notes.append(f"{PEER}: needs the network's float32 file, not a served graph.")
    else:
        try:
            engines = {PEER: arcface_onnx(session.subject.student)} | engines
            report.peer = PEER
        except EngineError as error:
            report.notes.append(str(error))

    def served(batch: int, callers: int) -> Callable[[], float]:
        """Return a way whose measurement is the seconds of `BATCH` faces, or of a lone one."""

        def way() -> float:
            point = closed_loop(client, STUDENT, batch=batch, concurrency=callers, seconds=seconds)
            lone = batch == callers == 1
            return point.p50_ms / 1e3 if lone else BATCH / point.faces_per_second

        return way

    ways: dict[str, Callable[[], float]] = {
        _label(name, size): lambda run=run, size=size: seconds_per_call(  # type: ignore[misc]
            lambda: run(faces[:size]), seconds
        )
        for name, run in engines.items()
        for size in (1, BATCH)
    }
    ways |= {_CALLERS: served(1, BATCH), _BATCHES: served(BATCH, 1), _LONE: served(1, 1)}
    measured = in_turn(ways, session.effort.rounds, session.progress)
    times = {(name, size): measured[_label(name, size)] for name in engines for size in (1, BATCH)}
    report.engines = speeds(engines, times, (1, BATCH), faces)
    _claim(session, session.served_by(STUDENT), measured)


def _label(engine: str, size: int) -> str:
    return f"{engine}, batch {size}"


def _claim(session: Session, engine: str, measured: dict[str, list[float]]) -> None:
    (served,) = (each for each in session.report.engines if each.name == engine)
    if served.ratio is not None:
        bound = 3.0 if session.report.machine.bf16 == "amx" else 1.0
        session.claim(f"{engine} against {PEER}, batch {BATCH}", served.ratio[BATCH], bound)
    session.claim(f"mean cosine of {engine} to fp32", served.mean_cosine, 0.9995)
    alone = measured[_label(engine, BATCH)]
    for way in (_CALLERS, _BATCHES):
        claim = f"{way}, against {engine} in process, batch {BATCH}"
        session.claim(claim, ratio(alone, measured[way]), 0.9)
    allowed = [1.3 * each + 0.002 for each in measured[_label(engine, 1)]]
    claim = f"p50, {_LONE}, against 1.3 x {engine} + 2 ms"
    session.claim(claim, ratio(measured[_LONE], allowed), 1.0, at_least=False)
