"""Whole modules, state and optimizers saved: the files must not know that they were watched."""

import hashlib
import io
import pickle

import digest
import tiny
import torch

model, optimizer, losses = tiny.train()
for name, value in {"model": model, "state": model.state_dict(), "optimizer": optimizer.state_dict()}.items():
    torch.save(value, f"{name}.pt")
    file = io.BytesIO()
    torch.save(value, file)
    print(name, hashlib.sha256(file.getvalue()).hexdigest())
print("pickled", len(pickle.dumps(model)), len(pickle.dumps(optimizer)))  # holds addresses: only its size is fixed
for module in model.modules():
    print(
        type(module).__name__,
        sorted(key for key in vars(module) if "hook" in key and vars(module)[key]),
        len(vars(module)),
    )
for parameter in model.parameters():
    print(tuple(parameter.shape), type(parameter).__name__, parameter._backward_hooks, sorted(vars(parameter)))
again = torch.load("model.pt", weights_only=False)
print(digest.of(again(torch.ones(1, 6))))
digest.show(again, losses=losses)
