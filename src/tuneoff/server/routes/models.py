"""The routes `/v1/models`: the bases that may be tuned, and the tuned models."""

from __future__ import annotations

from fastapi import APIRouter, Request

from tuneoff.server import cleanup, schemas
from tuneoff.server.errors import ApiError
from tuneoff.server.routes import tuned
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import Store

router = APIRouter(prefix="/v1/models", responses=schemas.describe_errors(404))


@router.get("")
def list_models(request: Request) -> schemas.ModelList:
    """List every model.

    Models whose base is not served now are included: they can be deleted, and work again when their
    base is served.
    """
    store: Store = request.app.state.store
    settings: ServerConfig = request.app.state.settings
    data = [_render_base(name) for name in settings.list_models()]
    data += [tuned.render_model(model, settings) for model in tuned.list_tuned(store)]
    return {"object": "list", "data": data}


@router.get("/{id:path}")
def retrieve(request: Request, id: str) -> schemas.Model:
    """Return a model."""
    settings: ServerConfig = request.app.state.settings
    if id in settings.list_models():
        return _render_base(id)
    return tuned.render_model(tuned.get_tuned(request.app.state.store, id), settings)


@router.delete("/{id:path}")
def delete(request: Request, id: str) -> schemas.Deleted:
    """Delete a tuned model or a checkpoint with its weights, on disk and in memory.

    A model's checkpoints stay: each is a model of its own, and one of them may be better.
    """
    state = request.app.state
    if id in state.settings.list_models():
        raise ApiError(
            403, f"{id} was not tuned by a job here; only such models can be deleted.", "model",
            "forbidden",
        )  # fmt: skip
    model = tuned.get_tuned(state.store, id)
    tuned.delete_tuned(state.store, model)
    served = tuned.build_served_model(state.store, state.settings, model)
    if served is not None:
        state.host.forget(served)
    cleanup.clean_job(state.store, state.claims, model.job_id)
    return {"id": id, "object": "model", "deleted": True}


def _render_base(name: str) -> schemas.Model:
    """Return a base model as the API shows it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "tuneoff"}
