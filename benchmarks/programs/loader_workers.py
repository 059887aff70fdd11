"""Two loader workers, forked and spawned, each with random numbers of its own."""

import digest
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noise(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.randn(5) + index, torch.tensor(np.random.randint(3)), torch.utils.data.get_worker_info().id


def main():
    torch.manual_seed(8)
    np.random.seed(8)
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for context in ("fork", "spawn"):
        loader = DataLoader(Noise(), 16, shuffle=True, num_workers=2, multiprocessing_context=context)
        for x, y, worker in loader:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            print(context, worker.tolist(), digest.of(x))
    digest.show(model, losses=losses, optimizers=[optimizer])


if __name__ == "__main__":
    main()
