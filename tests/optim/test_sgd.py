import pytest
import torch

from unstuck.errors import MisuseError
from unstuck.optim import _many
from unstuck.optim.sgd import Sgd, equal_rate

SHAPES = [(3, 2), (4,), (), (2, 5)]
SIZE, STEPS = 21, 30


class Quadratic:
    """The loss x'Ax / 2 of 21 numbers, which lie in tensors of several shapes; all in float64."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.axes = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)).Q
        self.curvatures = torch.linspace(0.05, 1.5, SIZE, dtype=torch.float64)
        self.matrix = self.axes @ torch.diag(self.curvatures) @ self.axes.T
        self.start = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        sizes = [torch.Size(shape).numel() for shape in SHAPES]
        parts = zip(self.start.split(sizes), SHAPES, strict=True)
        self.params = [torch.nn.Parameter(part.clone().reshape(shape)) for part, shape in parts]

    @property
    def at(self):
        return torch.cat([p.detach().flatten() for p in self.params])

    def run(self, optimizer, steps=STEPS):
        for _ in range(steps):
            optimizer.zero_grad()
            x = torch.cat([p.flatten() for p in self.params])
            (x @ self.matrix @ x / 2).backward()
            optimizer.step()
        return self.at

    def by_companion(self, companion, steps=STEPS):
        """Where (x, v) -> companion(curvature) (x, v) leads along each axis."""
        ends = []
        for curvature, first in zip(self.curvatures.tolist(), self.axes.T @ self.start, strict=True):
            matrix = torch.tensor(companion(curvature), dtype=torch.float64)
            ends.append((torch.linalg.matrix_power(matrix, steps) @ torch.stack([first, first * 0]))[0])
        return self.axes @ torch.stack(ends)


def near(a, b):
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)  # some dozens of roundings of float64


@pytest.fixture(params=["at once", "in pieces"])
def quadratic(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(_many, "CACHE", 32)  # four numbers
    return Quadratic()


def test_gradient_descent_goes_by_powers_of_a_matrix(quadratic):
    step = torch.eye(SIZE, dtype=torch.float64) - 0.3 * quadratic.matrix
    near(quadratic.run(Sgd(quadratic.params, 0.3)), torch.linalg.matrix_power(step, STEPS) @ quadratic.start)


def test_decay_of_gradient_descent_adds_to_the_curvature(quadratic):
    step = torch.eye(SIZE, dtype=torch.float64) * (1 - 0.3 * 0.2) - 0.3 * quadratic.matrix
    end = quadratic.run(Sgd(quadratic.params, 0.3, weight_decay=0.2))
    near(end, torch.linalg.matrix_power(step, STEPS) @ quadratic.start)


@pytest.mark.parametrize("decay, decoupled", [(0.0, False), (0.1, False), (0.1, True)])
def test_the_heavy_ball_goes_by_its_companion_matrix(quadratic, decay, decoupled):
    lr, beta = 0.2, 0.8
    end = quadratic.run(Sgd(quadratic.params, lr, beta, weight_decay=decay, decoupled=decoupled))
    if decoupled:
        near(end, quadratic.by_companion(lambda c: [[1 - lr * decay - lr * c, -lr * beta], [c, beta]]))
    else:
        near(end, quadratic.by_companion(lambda c: [[1 - lr * (c + decay), -lr * beta], [c + decay, beta]]))


def test_the_mean_form_goes_by_its_companion_matrix(quadratic):
    lr, beta = 0.9, 0.8
    end = quadratic.run(Sgd(quadratic.params, lr, beta, "mean"))
    near(end, quadratic.by_companion(lambda c: [[1 - lr * (1 - beta) * c, -lr * beta], [(1 - beta) * c, beta]]))


def test_nesterov_goes_by_its_companion_matrix(quadratic):
    lr, beta = 0.2, 0.8
    end = quadratic.run(Sgd(quadratic.params, lr, beta, nesterov=True))
    near(end, quadratic.by_companion(lambda c: [[1 - lr * (1 + beta) * c, -lr * beta**2], [c, beta]]))


def test_nesterov_is_where_the_first_form_takes_its_gradient():
    quadratic, lr, beta = Quadratic(), 0.2, 0.8
    at, velocity = quadratic.start, torch.zeros(SIZE, dtype=torch.float64)
    for _ in range(STEPS):  # Sutskever et al. 2013, equations 3 and 4
        velocity = beta * velocity - lr * (quadratic.matrix @ (at + beta * velocity))
        at = at + velocity
    near(quadratic.run(Sgd(quadratic.params, lr, beta, nesterov=True)), at + beta * velocity)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_at_equal_rates_both_forms_go_the_same_way(nesterov, decoupled):
    lr, beta, decay, ends = 0.1, 0.9, 0.05, []
    other = equal_rate(lr, beta, form="mean")
    assert equal_rate(other, beta, form="sum") == pytest.approx(lr, rel=1e-15)
    for form, rate in (("sum", lr), ("mean", other)):
        quadratic = Quadratic()
        share = decay * lr / rate if decoupled else decay
        ends.append(
            quadratic.run(
                Sgd(quadratic.params, rate, beta, form, nesterov=nesterov, weight_decay=share, decoupled=decoupled)
            )
        )
    near(*ends)
    assert not torch.allclose(ends[0], quadratic.start, rtol=0.1)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_the_sum_form_is_that_of_torch(settings):
    ours, theirs = Quadratic(), Quadratic()
    near(ours.run(Sgd(ours.params, 0.1, **settings)), theirs.run(torch.optim.SGD(theirs.params, 0.1, **settings)))


def test_dampening_of_torch_differs_by_the_first_gradient():
    ours, theirs = Quadratic(), Quadratic()
    mean = ours.run(Sgd(ours.params, 0.1, 0.9, "mean"), steps=1)
    damped = theirs.run(torch.optim.SGD(theirs.params, 0.1, 0.9, dampening=0.9), steps=1)
    near(10 * (mean - ours.start), damped - ours.start)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("capturable", [False, True])
def test_corrected_for_bias_a_mean_of_equal_gradients_is_that_gradient_from_the_first_step_on(nesterov, capturable):
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = Sgd(
        [weight], 0.5, 0.9, "mean", nesterov=nesterov, bias_correction=True, capturable=capturable
    )  # fmt: skip
    for step in range(1, 6):
        weight.grad = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
        optimizer.step()
        # capturable counts in float32
        torch.testing.assert_close(
            weight.detach(), -0.5 * step * weight.grad, rtol=1e-6 if capturable else 1e-14, atol=0
        )


def test_maximize_goes_up():
    up, down = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    up.grad, down.grad = torch.full((3,), 2.0), torch.full((3,), -2.0)
    Sgd([up], 0.1, 0.9, maximize=True).step()
    Sgd([down], 0.1, 0.9).step()
    assert torch.equal(up, down)
    assert torch.equal(up.grad, torch.full((3,), 2.0))  # gradients stay as they are


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"lr": -1.0}, "lr is -1.0; a learning rate is from 0"),
        ({"lr": "0.1"}, "lr is '0.1'; a learning rate is from 0"),
        ({"lr": 0.1, "momentum": 1.0}, "momentum is 1.0"),
        ({"lr": 0.1, "weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"lr": 0.1, "form": "avg"}, "form is 'avg'; it is 'sum'"),
        ({"lr": 0.1, "nesterov": True}, "nesterov=True needs momentum"),
        ({"lr": 0.1, "momentum": 0.9, "bias_correction": True}, "for form='mean'"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(MisuseError, match=says):
        Sgd([torch.nn.Parameter(torch.ones(1))], **settings)


def test_a_rate_for_no_momentum_at_all_is_refused():
    with pytest.raises(MisuseError, match="momentum is 1"):
        equal_rate(0.1, 1, form="mean")
    with pytest.raises(MisuseError, match="form is 'both'"):
        equal_rate(0.1, 0.9, form="both")
