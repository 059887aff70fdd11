import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.optim import _many
from unstuck.optim._many import Bundle, bundles, correction
from unstuck.optim.lamb import Lamb
from unstuck.optim.lars import Lars
from unstuck.optim.sgd import Sgd


def optimizer_of(params):
    for param in params:
        param.grad = torch.ones_like(param)
    return Sgd(params, 0.1, 0.9)


def test_bundles_hold_one_type_and_fit_into_the_cache(monkeypatch):
    monkeypatch.setattr(_many, "CACHE", 4 * 10)
    params = [nn.Parameter(torch.ones(n, dtype=d)) for d in (torch.float32, torch.float64) for n in (6, 4, 1, 30)]
    optimizer = optimizer_of(params)
    found = [[p.numel() for p in b.params] for b in bundles(optimizer, optimizer.param_groups[0], ("velocity",))]
    assert found == [[6, 4], [1], [30], [6], [4, 1], [30]]


def test_what_alone_is_too_large_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(_many, "CACHE", 4 * 10)
    large, turned = torch.arange(24.0).reshape(4, 6), torch.arange(24.0).reshape(6, 4).T
    parts = list(Bundle([large], [large + 1], ([large + 2],), 3, True).parts())
    assert [part.params[0].numel() for part in parts] == [10, 10, 4]
    assert torch.equal(torch.cat([part.kept[0][0] for part in parts]), (large + 2).flatten())
    assert all(part.params[0].untyped_storage().data_ptr() == large.untyped_storage().data_ptr() for part in parts)
    whole = Bundle([turned], [turned], (), 0, None)
    assert list(whole.parts()) == [whole]  # has no pieces that lie in a row


@pytest.mark.parametrize(
    "make", [Lamb, lambda p: Lars(p, 0.1), lambda p: Sgd(p, 0.1, 0.9, nesterov=True, weight_decay=0.1)]
)
@pytest.mark.parametrize("cache", [2**19, 64])
def test_the_layout_of_tensors_does_not_matter(monkeypatch, make, cache):
    monkeypatch.setattr(_many, "CACHE", cache)
    torch.manual_seed(0)
    start, grads = torch.randn(4, 3, 5, 5), torch.randn(3, 4, 3, 5, 5)
    ends = []
    for layouts in (
        (torch.contiguous_format,) * 2,
        (torch.channels_last,) * 2,
        (torch.channels_last, torch.contiguous_format),
    ):
        weight = nn.Parameter(start.clone().to(memory_format=layouts[0]))
        optimizer = make([weight])
        for grad in grads:
            weight.grad = grad.clone().to(memory_format=layouts[1])
            optimizer.step()
        ends.append(weight.detach())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-5, atol=1e-6)  # norms are summed in another order


def test_what_an_average_lacks_is_exact_even_in_float32():
    steps = torch.tensor([1.0, 2.0, 1000.0])
    assert torch.allclose(correction(0.999, steps).double(), 1 - 0.999 ** steps.double(), rtol=3e-7, atol=0)
    assert torch.equal(correction(0.0, steps), torch.ones(3))
    assert correction(0.9, 2) == pytest.approx(0.19)


def test_a_captured_graph_must_count_in_tensors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(MisuseError, match="capturable=True"):
        _many._check_capture(torch.device("cuda"), False)
    _many._check_capture(torch.device("cuda"), True)
    _many._check_capture(torch.device("cpu"), False)
