"""Classes of `__main__` pickled and read again, here and in a spawned process."""

import multiprocessing
import pickle

import digest
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Linear(3, width)

    def forward(self, x):
        return self.body(x).relu()


def judge(packed):
    model = pickle.loads(packed)
    loss = model(torch.ones(2, 3)).sum()
    loss.backward()
    return type(model).__qualname__, loss.item().hex(), digest.of(model.body.weight.grad)


if __name__ == "__main__":
    torch.manual_seed(1)
    net = Net(4)
    net(torch.ones(2, 3)).sum().backward()
    print(Net.__module__, judge(pickle.dumps(net)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(judge, (pickle.dumps(net),)))
    digest.show(net)
