import pytest
import torch

from unstuck.errors import MisuseError
from unstuck.optim import _many
from unstuck.optim.lamb import Lamb

SHAPES = [(3, 4), (4,), (2, 3, 2, 2), (), (5, 1)]


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in SHAPES]


def gradients(steps=12):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES] for _ in range(steps)]


def run(optimizer, params, grads=None):
    for row in grads or gradients():
        for param, grad in zip(params, row, strict=True):
            param.grad = grad.to(param.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


def by_the_paper(w, grads, *, lr, beta1, beta2, eps, decay, phi=lambda z: z, corrected=True, adapted=True):
    """You et al. 2020, algorithm 2, one parameter."""
    m = v = torch.zeros_like(w)
    for t, g in enumerate(grads, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = (m / (1 - beta1**t), v / (1 - beta2**t)) if corrected else (m, v)
        r = m_hat / (v_hat.sqrt() + eps)
        u = r + decay * w
        ratio = phi(w.norm()) / u.norm() if adapted and w.norm() > 0 and u.norm() > 0 else 1
        w = w - lr * ratio * u
    return w


@pytest.fixture(params=["at once", "in pieces", "not fused"], autouse=True)
def way(request, monkeypatch):
    if request.param == "not fused":
        monkeypatch.setattr(_many, "FUSED", ())
    if request.param == "in pieces":
        monkeypatch.setattr(_many, "CACHE", 40)  # five numbers


@pytest.mark.parametrize(
    "settings, paper",
    [
        ({}, {}),
        ({"weight_decay": 0.1}, {"decay": 0.1}),
        ({"weight_decay": 0.1, "bias_correction": False}, {"decay": 0.1, "corrected": False}),
        ({"clamp": (0.5, 2.0)}, {"phi": lambda z: z.clamp(0.5, 2.0)}),
        ({"betas": (0.0, 0.9), "eps": 0.1}, {"beta1": 0.0, "beta2": 0.9, "eps": 0.1}),
        ({"weight_decay": 0.1, "capturable": True}, {"decay": 0.1}),
    ],
)
def test_it_is_algorithm_2(settings, paper):
    params, grads = parameters(), gradients()
    starts = [p.detach().clone() for p in params]
    found = run(Lamb(params, 0.05, **settings), params, grads)
    known = {"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "decay": 0.0, **paper}
    rtol = 1e-5 if settings.get("capturable") else 1e-11  # capturable counts in float32
    for i, (start, end) in enumerate(zip(starts, found, strict=True)):
        told = by_the_paper(start, [row[i] for row in grads], adapted=start.dim() > 1, **known)
        torch.testing.assert_close(end, told, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("adapt", [True, False])
def test_a_group_says_whether_it_is_adapted(adapt):
    params, grads = parameters(), gradients()
    starts = [p.detach().clone() for p in params]
    found = run(Lamb([{"params": params, "adapt": adapt}], 0.05), params, grads)
    known = {"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "decay": 0.0}
    for i, (start, end) in enumerate(zip(starts, found, strict=True)):
        told = by_the_paper(start, [row[i] for row in grads], adapted=adapt, **known)
        torch.testing.assert_close(end, told, rtol=1e-11, atol=1e-11)


def test_without_the_ratio_it_is_adamw():
    ours, theirs = parameters(), parameters()
    found = run(Lamb(ours, 0.05, eps=1e-8, weight_decay=0.1, adapt=False), ours)
    known = run(torch.optim.AdamW(theirs, 0.05, eps=1e-8, weight_decay=0.1), theirs)
    for a, b in zip(found, known, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_what_has_no_length_takes_steps_of_ratio_1():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    Lamb([weight], 0.1, eps=0).step()
    assert torch.allclose(weight, torch.full((2, 2), -0.1))
    still = torch.nn.Parameter(torch.ones(2, 2))
    still.grad = torch.zeros(2, 2)
    Lamb([still], 0.1).step()
    assert torch.equal(still, torch.ones(2, 2))


@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-5), (torch.bfloat16, 0.06), (torch.float16, 0.01)])
def test_other_types_go_nearly_the_same_way(dtype, rtol):  # some units of rounding: 2**-23, 2**-8, 2**-11
    params, wide = parameters(dtype), parameters()
    ends = run(Lamb(params, 0.01, eps=1e-3), params), run(Lamb(wide, 0.01, eps=1e-3), wide)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=rtol)


def test_complex_numbers_are_pairs():
    weight = torch.nn.Parameter(torch.tensor([[3 + 4j, 1 - 2j]], dtype=torch.complex128))
    pairs = torch.nn.Parameter(torch.view_as_real(weight.detach()).clone())
    ours, other = Lamb([weight], 0.1, weight_decay=0.1), Lamb([pairs], 0.1, weight_decay=0.1)
    for _ in range(5):
        weight.grad = weight.detach() * (1 + 2j)
        pairs.grad = torch.view_as_real(weight.grad).clone()
        ours.step()
        other.step()
    torch.testing.assert_close(torch.view_as_real(weight.detach()), pairs.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] is 1.0"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] is -0.1"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"clamp": (2.0, 1.0)}, "the least and the greatest length"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(MisuseError, match=says):
        Lamb([torch.nn.Parameter(torch.ones(1))], **settings)
