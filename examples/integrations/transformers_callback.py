"""Hugging Face Trainer: a small GPT-2 that learns to count, with a rate far too high, and the callback that says so."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from unstuck.integrations.transformers import UnstuckCallback

set_seed(0)
start, step = torch.randint(0, 16, (1024, 1)), torch.randint(1, 4, (1024, 1))
tokens = (start + step * torch.arange(12)) % 16
model = GPT2LMHeadModel(
    GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=16, n_positions=12, bos_token_id=0, eos_token_id=0)
)
args = TrainingArguments(
    "out",
    learning_rate=3.0,
    optim="sgd",
    max_grad_norm=0.0,
    num_train_epochs=4,
    per_device_train_batch_size=32,
    use_cpu=True,
    save_strategy="no",
    report_to=[],
)
unstuck = UnstuckCallback(stop_on="error")
trainer = Trainer(model, args, train_dataset=[{"input_ids": row, "labels": row} for row in tokens], callbacks=[unstuck])
trainer.train()
print("found:", unstuck.verdict.findings[0].cause, "after", trainer.state.global_step, "steps")
