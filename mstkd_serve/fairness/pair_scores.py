"""Score a list of image pairs with a model in process or behind a URL."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from mstkd_serve.contract import FaceContract
from mstkd_serve.engine import OnnxRuntimeEngine
from mstkd_serve.errors import ContractError, DataError, ServerError
from mstkd_serve.fairness.calibrate import contract_of
from mstkd_serve.fairness.pair_lists import ImagePair
from mstkd_serve.fairness.schema import ModelDescription
from mstkd_serve.fairness.scores import Scores
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME

_BATCH = 32
_PAIRS = 10_000
_TIMEOUT = 60.0

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def model_embedder(model: Path) -> tuple[Embed, ModelDescription]:
    """Embed with a served graph in process.

    Raises:
        ContractError: The file carries no contract.
        GraphError: It is not ONNX.
        EngineError: ONNX Runtime refuses it.
    """
    contract = contract_of(model)
    engine = OnnxRuntimeEngine(model)
    return engine.run, ModelDescription(name=model.stem, contract_id=contract.id)


@contextlib.contextmanager
def url_embedder(url: str, model_name: str = "student") -> Iterator[tuple[Embed, ModelDescription]]:
    """Embed with a model of a running server; yields what `model_embedder` returns.

    Raises:
        ServerError: The server does not answer, or not for this model.
        ContractError: The model carries no contract.
    """
    try:
        with contextlib.closing(InferenceServerClient(url)) as client:
            config = client.get_model_config(model_name, client_timeout=_TIMEOUT).config
            parameters = {key: value.string_value for key, value in config.parameters.items()}
            contract = FaceContract.from_metadata(parameters, source=model_name)
            if contract is None:
                raise ContractError(f"{model_name} at {url} carries no face contract.")

            def embed(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
                rows = []
                most = max(config.max_batch_size, 1)
                for start in range(0, len(faces), most):
                    chunk = faces[start : start + most]
                    request = InferInput(INPUT_NAME, list(chunk.shape), "UINT8")
                    request.set_data_from_numpy(chunk)
                    answer = client.infer(model_name, [request], client_timeout=_TIMEOUT)
                    rows.append(answer.as_numpy(OUTPUT_NAME))
                return np.concatenate(rows)

            yield embed, ModelDescription(name=model_name, contract_id=contract.id)
    except InferenceServerException as error:
        raise ServerError(
            f"{url}: {error.message()}. Check --url and --model-name, or start a server with "
            "'mstkd-serve up'."
        ) from error


def score_pairs(
    pairs: Sequence[ImagePair],
    embed: Embed,
    source: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Embed each image once and score the pairs by cosine.

    Args:
        pairs: At least one.
        embed: From uint8 RGB `(n, 112, 112, 3)` to unit embeddings float32 `(n, dim)`.
        source: Name of the list, for messages.
        progress: Called with the images embedded so far and their number.

    Raises:
        DataError: An image is not an aligned 112x112 RGB face.
    """
    images = sorted({path for pair in pairs for path in (pair.first, pair.second)})
    place = {path: index for index, path in enumerate(images)}
    parts = []
    for start in range(0, len(images), _BATCH):
        chunk = images[start : start + _BATCH]
        parts.append(embed(np.stack([read_face(path) for path in chunk])))
        progress(start + len(chunk), len(images))
    vectors = np.concatenate(parts).astype(np.float64)
    first = np.array([place[pair.first] for pair in pairs])
    second = np.array([place[pair.second] for pair in pairs])
    score = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS):
        rows = slice(start, start + _PAIRS)
        score[rows] = np.einsum("pd,pd->p", vectors[first[rows]], vectors[second[rows]])
    return _scores(pairs, score, source)


def _scores(pairs: Sequence[ImagePair], score: NDArray[np.float64], source: str) -> Scores:
    extra: dict[str, NDArray[np.int32]] = {}
    names: dict[str, tuple[str, ...]] = {}
    for column in ("fold", "first_identity", "second_identity"):
        values = [getattr(pair, column) for pair in pairs]
        if all(value is not None for value in values):
            texts, codes = np.unique(np.asarray(values, np.str_), return_inverse=True)
            names[column], extra[column] = tuple(texts.tolist()), codes.astype(np.int32)
    groups, codes = np.unique([pair.group for pair in pairs], return_inverse=True)
    return Scores(
        group_names=tuple(groups.tolist()),
        group=codes.astype(np.int32),
        genuine=np.array([pair.genuine for pair in pairs]),
        score=score,
        extra=extra,
        names=names,
        source=source,
    )


def read_face(path: Path) -> NDArray[np.uint8]:
    """Read an aligned face, uint8 RGB `(112, 112, 3)`.

    Raises:
        DataError: It is not a readable image, or another size or mode.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError("reading images needs pip install 'mstkd-serve[report]'.") from error
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
            if image.size != (112, 112) or image.mode != "RGB":
                raise DataError(
                    f"{path}: is {image.size[0]}x{image.size[1]} {image.mode}; an aligned 112x112 "
                    "RGB face is needed."
                )
            return np.asarray(image, np.uint8)
    except (
        OSError,
        SyntaxError,  # Pillow's word for a broken PNG
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{path}: not a readable image.") from error
