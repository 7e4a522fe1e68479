"""The routes `/v1/models`: the bases that may be tuned, and the tuned models."""

from __future__ import annotations

from fastapi import APIRouter, Request

from tuneoff.server import leftovers, shapes, tuned
from tuneoff.server.errors import ApiError
from tuneoff.server.settings import ServerSettings
from tuneoff.server.store import Store

router = APIRouter(prefix="/v1/models", responses=shapes.errors(404))


@router.get("")
def list_models(request: Request) -> shapes.ModelList:
    """List every model.

    Models whose base is not served now are included: they can be deleted, and work again when their
    base is served.
    """
    store: Store = request.app.state.store
    settings: ServerSettings = request.app.state.settings
    data = [_base(name) for name in settings.ready()]
    data += [tuned.shown(model, settings) for model in tuned.all_tuned(store)]
    return {"object": "list", "data": data}


@router.get("/{id:path}")
def retrieve(request: Request, id: str) -> shapes.Model:
    """Return a model."""
    settings: ServerSettings = request.app.state.settings
    if id in settings.ready():
        return _base(id)
    return tuned.shown(tuned.known(request.app.state.store, id), settings)


@router.delete("/{id:path}")
def delete(request: Request, id: str) -> shapes.Deleted:
    """Delete a tuned model or a checkpoint with its weights, on disk and in memory.

    A model's checkpoints stay: each is a model of its own, and one of them may be better.
    """
    state = request.app.state
    if id in state.settings.ready():
        raise ApiError(
            403, f"{id} was not tuned by a job here; only such models can be deleted.", "model",
            "forbidden",
        )  # fmt: skip
    model = tuned.known(state.store, id)
    tuned.delete(state.store, model)
    served = tuned.served(state.store, state.settings, model)
    if served is not None:
        state.host.forget(served)
    leftovers.clear(state.store, state.claims, model.job_id)
    return {"id": id, "object": "model", "deleted": True}


def _base(name: str) -> shapes.Model:
    """Return a base model as the API shows it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "tuneoff"}
