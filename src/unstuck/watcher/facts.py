"""Puts what the books know together into the record's `Program`, and says what could not be found."""

from __future__ import annotations

import math
from typing import Any

from unstuck._language import marked
from unstuck.evidence import Layer, Model, Parameter, Program
from unstuck.watcher import ops
from unstuck.watcher.scores import task_of


def program_of(session: Any) -> Program:
    """All that is known of the script so far."""
    layers = _layers(session)
    parameters = _parameters(session)
    models = _models(session)
    optimizers = session.optimizers.facts()
    batches = optimizers[0].backwards_per_step if optimizers else 1.0
    return Program(
        models=tuple(models),
        layers=tuple(layers),
        parameters=tuple(parameters),
        optimizers=tuple(optimizers),
        losses=tuple(session.losses.facts(batches)),
        task=task_of(session.losses.main, batches),
        data=session.data.facts(),
        features=tuple(_features(session)),
        not_found=tuple(_not_found(session)),
    )


def _layers(session: Any) -> list[Layer]:
    registry = session.registry
    names = {layer.index: layer.name for layer in registry.ordered}
    owners = {p.index: p.name for p in registry.parameters}
    return [
        Layer(
            layer.name, layer.op, layer.module, layer.site, tuple(names[i] for i in layer.inputs),
            tuple(dict.fromkeys(owners[i] for i in layer.parameters)), layer.out_shape, layer.role, layer.model,
            max(1, layer.most_calls), dict(layer.settings),
        )
        for layer in registry.ordered
        if layer.most_calls or layer.calls
    ]  # fmt: skip


def _parameters(session: Any) -> list[Parameter]:
    registry = session.registry
    where = session.optimizers.order()
    users: dict[int, list[str]] = {}
    for layer in registry.ordered:
        for index in layer.parameters:
            users.setdefault(index, []).append(layer.name)
    by_hand = session.optimizers.by_hand and not session.optimizers.lead_known
    found = []
    for state in registry.parameters:
        tensor = state.ref()
        if tensor is not None:
            state.trainable = bool(tensor.requires_grad)
        held = tuple(sorted(where[i] for i in state.optimizers if i in where))
        if by_hand and state.changed:
            held = (0,)
        found.append(
            Parameter(
                state.name, state.shape, tuple(dict.fromkeys(users.get(state.index, ()))), state.trainable, state.used,
                state.got_grad, held, state.changed, state.remade, dict(state.initial),
            )
        )  # fmt: skip
    return found


def _models(session: Any) -> list[Model]:
    registry = session.registry
    found = []
    for model in sorted(registry.models, key=lambda m: not m.trained):
        mode = "both" if len(model.modes) > 1 else next(iter(model.modes), "train")
        found.append(
            Model(
                model.name, model.kind, model.num_parameters, model.trained, model.wrapped_by, model.input_shape, mode
            )
        )
    plain = [s for s in registry.parameters if s.used and not s.model]
    if plain and not any(m.trained for m in found):
        names = ", ".join(s.name for s in plain[:4]) + (", ..." if len(plain) > 4 else "")
        found.insert(0, Model(names, "tensors", sum(math.prod(s.shape) for s in plain), True, (), (), "train"))
    return found


def _features(session: Any) -> list[str]:
    features = dict(session.features)
    for model in session.registry.models:
        for wrapper in model.wrapped_by:
            features.setdefault("torch.compile" if wrapper == "OptimizedModule" else wrapper)
    return list(features)


def _not_found(session: Any) -> list[str]:
    said = []
    if not session.step and not session.losses.states:
        said.append(marked("no training was seen: nothing called backward"))
        return said
    facts = session.optimizers.facts()
    if not facts:
        said.append(marked("no optimizer was seen, and no parameter was found changed between two backwards"))
    elif facts[0].kind == "hand-written" and math.isnan(session.optimizers.hand_rate):
        said.append(
            marked("the parameters are updated by hand, not by a constant times the gradient: the rate is unknown")
        )
    if session.data.training_loader is None:
        said.append(marked("no torch DataLoader feeds the training, so epochs are unknown"))
    if not session.data.batch_size:
        said.append(marked("the batch size is unknown"))
    if not session.losses.score_name:
        said.append(marked("no score could be computed: outputs and targets were not both found at the loss"))
    if not session.data.eval_passes:
        said.append(marked("no evaluation without gradients was seen"))
    if not any(layer.op in ops.MEASURED for layer in session.registry.ordered):
        said.append(marked("no layer was seen"))
    return said
