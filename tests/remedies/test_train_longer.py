from __future__ import annotations

import pytest

from unstuck.remedies.train_longer import train_longer
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("head", "becomes"),
    [
        ("for epoch in range(10):", "for epoch in range(30):"),
        ("for epoch in range(1, 10):", "for epoch in range(1, 30):"),
        ("for epoch in range(1, epochs + 1):", "for epoch in range(1, 3 * (epochs + 1)):"),
        ("for step in range(0, 100, 10):", "for step in range(0, 300, 10):"),
        ("for epoch in tqdm(range(args.epochs)):", "for epoch in tqdm(range(3 * args.epochs)):"),
        ("for epoch in trange(10, desc='epochs'):", "for epoch in trange(30, desc='epochs'):"),
        ("for epoch, rate in zip(range(10), rates):", "for epoch, rate in zip(range(30), rates):"),
        ("while epoch < 10:", "while epoch < 30:"),
        ("while step != steps():", "while step != 3 * steps():"),
    ],
)
def test_a_bound(script, head, becomes):
    made = script(f"{head}\n    loss.backward()\n")
    assert made.diff(train_longer, times=3) == [f"-{head}", f"+{becomes}"]


def test_a_constant(script):
    made = script("EPOCHS = 10\nfor epoch in tqdm(range(EPOCHS)):\n    loss.backward()\n")
    assert made.diff(train_longer, times=2.5) == ["-EPOCHS = 10", "+EPOCHS = 25"]


def test_a_part_of_the_time(script):
    made = script("for epoch in range(args.epochs):\n    loss.backward()\n")
    assert made.added(train_longer, times=2.5) == ["for epoch in range(round(2.5 * args.epochs)):"]


@pytest.mark.parametrize("outer", ["for epoch in range(3):", "while True:"])
def test_samples_are_not_passes(script, outer):
    made = script(f"{outer}\n    for i in range(0, len(x), 32):\n        loss.backward()\n")
    if "range" in outer:
        assert made.added(train_longer, times=10) == ["for epoch in range(30):"]
    else:
        with pytest.raises(EditError, match="counts up"):
            train_longer(made)


@pytest.mark.parametrize("name", ["train", "train_one_epoch"])
def test_training_in_a_function(script, name):
    made = script(f"""
        def {name}(model, loader):
            model.train()
            for x, y in loader:
                model(x).backward()

        def main():
            for epoch in range(10):
                {name}(model, loader)

        if __name__ == "__main__":
            main()
    """)
    assert made.added(train_longer) == ["    for epoch in range(30):"]


def test_training_in_a_method(script):
    made = script("""
        class Trainer:
            def train(self):
                self.model.train()
                for x, y in self.loader:
                    self.step(x, y)

            def step(self, x, y):
                self.loss(x, y).backward()

            def fit(self, epochs=10):
                for epoch in range(epochs):
                    self.train()

        Trainer().fit(20)
    """)
    assert made.added(train_longer) == ["Trainer().fit(60)"]


def test_a_closure(script):
    made = script("""
        for step in range(10):
            def closure():
                loss = f(x)
                loss.backward()
                return loss
            opt.step(closure)
    """)
    assert made.added(train_longer) == ["for step in range(30):"]


def test_no_loop(script):
    with pytest.raises(EditError, match="in no loop"):
        train_longer(script("loss.backward()\n"))
