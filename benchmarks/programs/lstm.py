"""An LSTM over packed sequences, its state carried and detached, gradients clipped."""

import digest
import torch
from torch import nn

torch.manual_seed(4)
embed, lstm, head = (
    nn.Embedding(20, 16, padding_idx=0),
    nn.LSTM(16, 24, 2, dropout=0.2, batch_first=True),
    nn.Linear(24, 20),
)
parameters = [*embed.parameters(), *lstm.parameters(), *head.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
losses, norms, state = [], [], None
for _ in range(12):
    tokens, lengths = torch.randint(1, 20, (8, 10)), torch.randint(4, 11, (8,)).sort(descending=True).values
    packed = nn.utils.rnn.pack_padded_sequence(embed(tokens), lengths, batch_first=True)
    out, state = lstm(packed, state)
    state = tuple(part.detach() for part in state)
    hidden, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=10)
    loss = nn.functional.cross_entropy(head(hidden).flatten(0, 1), tokens.roll(-1, 1).flatten())
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    norms.append(nn.utils.clip_grad_norm_(parameters, 0.25).item())
    optimizer.step()
    losses.append(loss.item())
digest.show(embed, lstm, head, losses=losses + norms, optimizers=[optimizer])
