"""Ray Train: a loop whose network is never trained in full, watched in its workers; the verdict comes back with the result."""

import ray
import torch
from ray import train
from ray.train.torch import TorchTrainer
from torch import nn

from unstuck.integrations.ray_train import watched


def loop(config):
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    y = (x @ torch.randn(16, 3)).argmax(1)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
    optimizer = torch.optim.SGD(net[2].parameters(), lr=config["lr"])  # and those of net[0]?
    for _ in range(300):
        at = torch.randint(0, 512, (32,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[at]), y[at])
        loss.backward()
        optimizer.step()
    train.report({"loss": loss.item()})


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False)
    trainer = TorchTrainer(
        watched(loop), train_loop_config={"lr": 0.1}, scaling_config=train.ScalingConfig(num_workers=1)
    )
    told = trainer.fit().return_value["unstuck"]
    print("record:", told["run"]["record"])
    print("found:", told["findings"][0]["cause"])
