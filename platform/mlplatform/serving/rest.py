"""TensorFlow Serving's REST API, so that its clients work unchanged.

Enters: requests under /v1/models.  Leaves: a model's status, its signatures, predictions; or
{"error": what is wrong}.  The JSON and the texts are TensorFlow Serving's (tensorflow.org/tfx/
serving/api_rest), the caps and the refusals by key and rate are the doors'.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from google.protobuf import json_format

from mlplatform.errors import InvalidArgument, PlatformError
from mlplatform.serving import predict_json
from mlplatform.serving.doors import refusal
from mlplatform.serving.servable import Servable
from mlplatform.serving.servables import ModelSpec, Servables
from mlplatform.serving.signature import MAX_TEXT

_MODEL = "/v1/models/{name}"
_DIGITS = 18  # more, and the number is no version
_JSON = "application/json"


def _latest(name: str) -> ModelSpec:
    return ModelSpec(name)


def _numbered(name: str, version: str) -> ModelSpec:
    if not (version.isascii() and version.isdigit() and len(version) <= _DIGITS):
        raise InvalidArgument(f"Failed to convert version: {version[:MAX_TEXT]} to numeric.")
    return ModelSpec(name, version=int(version))


def _labelled(name: str, label: str) -> ModelSpec:
    return ModelSpec(name, label=label)


_FORMS: dict[str, Callable[..., ModelSpec]] = {
    _MODEL: _latest,
    f"{_MODEL}/versions/{{version}}": _numbered,
    f"{_MODEL}/labels/{{label}}": _labelled,
}


def rest_router(servables: Servables) -> APIRouter:
    """The routes; every error of theirs is answered by themselves."""
    router = APIRouter(route_class=_Route, tags=["TensorFlow Serving"], responses=_RESPONSES)
    for path, form in _FORMS.items():
        _add(router, servables, path, form)
    return router


def _add(
    router: APIRouter, servables: Servables, path: str, form: Callable[..., ModelSpec]
) -> None:
    """The routes of one way to say which model."""
    asked = Depends(form)

    @router.get(path, summary="The state of a model's versions")
    async def status(spec: ModelSpec = asked) -> JSONResponse:
        return JSONResponse(_status(servables, spec))

    @router.get(f"{path}/metadata", summary="A model's signatures")
    async def metadata(spec: ModelSpec = asked) -> JSONResponse:
        servable = servables.find(spec)
        return JSONResponse(await servables.run(partial(_metadata, servable)))

    @router.post(f"{path}:predict", summary="A model's outputs", openapi_extra=_PREDICT_BODY)
    async def predict(request: Request, spec: ModelSpec = asked) -> Response:
        servable, body = servables.find(spec), await request.body()
        return Response(await servables.run(partial(_predict, servable, body)), media_type=_JSON)

    @router.post(f"{path}:classify", include_in_schema=False)
    @router.post(f"{path}:regress", include_in_schema=False)
    async def refuse(request: Request, spec: ModelSpec = asked) -> None:
        servable, body = servables.find(spec), await request.body()
        method = request.url.path.rpartition(":")[2]
        await servables.run(partial(_refuse, servable, method, body))


def _status(servables: Servables, spec: ModelSpec) -> dict[str, Any]:
    return {
        "model_version_status": [
            {
                "version": str(version),
                "state": str(found.state),
                "status": {
                    "error_code": "UNKNOWN" if found.error else "OK",
                    "error_message": found.error,
                },
            }
            for version, found in servables.status(spec).items()
        ]
    }


def _metadata(servable: Servable) -> dict[str, Any]:
    """As TensorFlow Serving writes it: an int64 as a string, and what is empty too."""
    to_json = partial(
        json_format.MessageToDict,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    definitions = {name: to_json(found) for name, found in servable.signature_defs.items()}
    return {
        "model_spec": {
            "name": servable.name,
            "signature_name": "",
            "version": str(servable.version),
        },
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def _predict(servable: Servable, body: bytes) -> bytes:
    asked = predict_json.read(body)
    inputs = predict_json.arrays(asked, servable.signature(asked.signature_name).inputs)
    return predict_json.write(servable.predict(asked.signature_name, inputs), by_row=asked.by_row)


def _refuse(servable: Servable, method: str, body: bytes) -> NoReturn:
    servable.refuse(method, predict_json.signature_name(predict_json.parse(body)))


class _Route(APIRoute):
    """A route that answers a PlatformError itself, in whatever app it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except PlatformError as error:
                status, body, headers = refusal(error)
                texts = {name.decode(): value.decode() for name, value in headers}
                return Response(body, status, texts, _JSON)

        return answer


_PROBLEM = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {_JSON: {"schema": _PROBLEM}}}
    for status, description in {
        400: "What is asked does not fit the model.",
        404: "No such model or version is served.",
        429: "Too many wait.",
    }.items()
}
_PREDICT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            _JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "signature_name": {"type": "string"},
                        "instances": {"type": "array", "description": "rows"},
                        "inputs": {"description": "columns"},
                    },
                    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
                }
            }
        },
    }
}
