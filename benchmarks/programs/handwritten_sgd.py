"""No module and no optimizer: plain tensors, a hand-written loss and update."""

import digest
import torch

generator = torch.Generator().manual_seed(6)
w1 = (torch.randn(10, 20, generator=generator) / 3).requires_grad_()
w2 = (torch.randn(20, 4, generator=generator) / 4).requires_grad_()
losses = []
for _ in range(20):
    x, y = torch.randn(16, 10, generator=generator), torch.randint(4, (16,), generator=generator)
    scores = (x @ w1).clamp(min=0) @ w2
    loss = (scores.exp().sum(1).log() - scores[range(16), y]).mean()
    loss.backward()
    with torch.no_grad():
        for w in (w1, w2):
            w -= 0.1 * w.grad
            w.grad.zero_()
    losses.append(loss.item())
print(digest.of([w1, w2, w1.grad, w2.grad, generator.get_state()]), w1.is_leaf, w1.grad_fn)
digest.show(losses=losses)
