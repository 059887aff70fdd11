"""Lightning: ten sigmoid layers on made-up data, and the callback that says why they don't learn."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.integrations.lightning import UnstuckCallback


class Deep(pl.LightningModule):
    def __init__(self):
        super().__init__()
        hidden = [layer for _ in range(9) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), *hidden, nn.Linear(32, 3))

    def training_step(self, batch, index):
        inputs, targets = batch
        return nn.functional.cross_entropy(self.net(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


pl.seed_everything(0)
x = torch.randn(1024, 16)
y = (x @ torch.randn(16, 3)).argmax(1)
unstuck = UnstuckCallback()
trainer = pl.Trainer(max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[unstuck])
trainer.fit(Deep(), DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True))
print("found:", unstuck.verdict.findings[0].cause)
