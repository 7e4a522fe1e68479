"""A model whose parameters are sharded over the processes (FSDP2, PyTorch's `fully_shard`).

Each decoder layer is gathered while it is computed and freed afterwards. Gradients and optimizer
moments exist only for a process's own shard. Frozen parameters under an adapter are sharded too.
One code path serves CPUs and accelerators. Files hold the full model, as one process writes it, so
a training may resume with another number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from tuneoff.errors import ContenderError
from tuneoff.models.loading import get_device
from tuneoff.prefix_sharing.micro_batch import unwrap_causal_lm
from tuneoff.training.distributed.process_group import ProcessGroup

State = dict[str, torch.Tensor]
ADAPTER_FILE = "adapter_model.safetensors"
INDEX_FILE, WHOLE_FILE = "model.safetensors.index.json", "model.safetensors"


def build_mesh(group: ProcessGroup) -> DeviceMesh:
    """Return a one-dimensional device mesh of all processes of a group."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(get_device().type, (group.size,))


def shard(model: PreTrainedModel, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Shard a model that lies in main memory; each process keeps its shard on its device.

    Args:
        dtype: the compute precision: layers are gathered in it, gradients added in float32.

    Raises:
        ContenderError: the model's layers cannot be found.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy()
    if dtype != torch.float32:
        # Do not cast inputs: a micro-batch's weights belong to its loss, which is float32.
        policy = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    for layer in find_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # Shard the outermost module too: it is the one that is called.
    fully_shard(model, mesh=mesh, mp_policy=policy)


def find_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the decoder layers: the modules that must not be split, or the longest module list.

    Raises:
        ContenderError: it has neither.
    """
    inner = unwrap_causal_lm(model)
    names = set(getattr(inner, "_no_split_modules", None) or ())
    layers = [module for module in inner.modules() if type(module).__name__ in names]
    if not layers:
        lists = [
            list(module) for module in inner.modules() if isinstance(module, torch.nn.ModuleList)
        ]
        layers = max(lists, key=len, default=[])
    if not layers:
        raise ContenderError(
            f"train.parallel: fsdp found no layers in {type(inner).__name__}; use ddp."
        )
    return layers


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether a model's parameters are sharded over processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def get_saved_state(model: PreTrainedModel) -> State:
    """Return the tensors that are saved, by their names in the file: adapter or all weights."""
    if hasattr(model, "get_base_model"):
        from peft import get_peft_model_state_dict

        # Whether embeddings belong to an adapter is asked of the file's writer, not here.
        adapter: State = get_peft_model_state_dict(model, save_embedding_layers=False)
        return adapter
    # A tied weight once, as in the file.
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def gather_state(tree: Any, group: ProcessGroup) -> Any:
    """Return a state with full tensors in the first process's main memory; None elsewhere.

    All processes must call it.
    """
    whole = _map_tensors(tree, lambda tensor: _gather_tensor(tensor, group.is_first))
    return whole if group.is_first else None


def load_weights(model: PreTrainedModel, folder: Path, group: ProcessGroup) -> None:
    """Load a checkpoint, which only the first process reads, into all processes.

    Raises:
        ContenderError: it is of another model.
    """
    live = get_saved_state(model)
    stored = _read_weights(folder) if group.is_first else {}
    missing = group.broadcast([name for name in live if name not in stored])
    if missing:
        raise ContenderError(f"{folder} does not hold this model: {missing[0]} is missing.")
    with torch.no_grad():
        for name, target in live.items():
            if isinstance(target, DTensor):
                whole = stored[name] if group.is_first else torch.empty(target.shape)
                whole = whole.to(target.device, target.dtype)
                target.copy_(distribute_tensor(whole, target.device_mesh, target.placements))
                continue
            if group.is_first:
                target.copy_(stored[name])
            torch.distributed.broadcast(target, src=0)


def load_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Load full optimizer moments, which every process has read, into a sharded optimizer."""
    parameters = [item for part in optimizer.param_groups for item in part["params"]]
    numbers = [number for part in saved["param_groups"] for number in part["params"]]
    state = {
        number: {
            name: _shard_like(value, parameter) for name, value in saved["state"][number].items()
        }
        for number, parameter in zip(numbers, parameters, strict=True)
        if number in saved["state"]
    }
    optimizer.load_state_dict({**saved, "state": state})


def _shard_like(value: Any, parameter: torch.Tensor) -> Any:
    """Return a moment sharded like its parameter; return counters unchanged."""
    fits = isinstance(value, torch.Tensor) and value.shape == parameter.shape
    if not fits or not isinstance(parameter, DTensor):
        return value
    # Every process has the whole: nothing needs to be sent.
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def _gather_tensor(tensor: torch.Tensor, first: bool) -> torch.Tensor | None:
    """Return the full tensor in the first process; None in the others."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu() if first else None


def _map_tensors(tree: Any, change: Any) -> Any:
    """Return a nested state with `change` applied to each tensor."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _map_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_map_tensors(value, change) for value in tree]
    return tree


def _read_weights(folder: Path) -> State:
    """Return the tensors of a checkpoint's safetensors files."""
    import json

    from safetensors.torch import load_file

    if (folder / INDEX_FILE).is_file():
        parts = set(json.loads((folder / INDEX_FILE).read_bytes())["weight_map"].values())
    else:
        parts = {ADAPTER_FILE if (folder / ADAPTER_FILE).is_file() else WHOLE_FILE}
    return {name: tensor for part in parts for name, tensor in load_file(folder / part).items()}
