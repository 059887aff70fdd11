from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unstuck.curvature.lanczos import Krylov
from unstuck.curvature.products import Dense


def grown(matrix: Tensor, products: int, **options) -> Krylov:
    krylov = Krylov(Dense(matrix), **options)
    while krylov.products < products and krylov.grow():
        pass
    return krylov


def network_like(size: int, dtype: torch.dtype, symmetric) -> Tensor:
    """A few large eigenvalues, a bulk near zero, a few negative ones."""
    generator = torch.Generator().manual_seed(1)
    bulk = 0.01 * torch.randn(size - 12, generator=generator, dtype=torch.float64)
    ends = torch.tensor([50.0, 25, 16, 14, 11, 9, 5, 2, 1, -0.3, -0.5, -1], dtype=torch.float64)
    return symmetric(torch.cat([ends, bulk])).to(dtype)


@pytest.mark.slow
def test_the_basis_stays_orthonormal(symmetric):
    krylov = grown(network_like(1500, torch.float32, symmetric), 200)
    # without making orthogonal anew 70 products leave .9; one pass leaves 1e-3
    assert float((krylov.basis @ krylov.basis.T - torch.eye(200)).abs().max()) < 1e-4


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_it_knows_what_the_matrix_does_to_its_basis(dtype, tolerance, symmetric):
    matrix = network_like(200, dtype, symmetric)
    krylov = grown(matrix, 20)
    krylov.explore(5)
    for _ in range(10):
        krylov.grow(krylov.ritz()[2][:, 0])
    assert krylov.products > 30 and len(krylov._rests) == 2
    image = (matrix @ krylov.basis.T).T
    # rounding of products, relative to the largest of length 50
    assert float((krylov.image() - image).abs().max()) < tolerance * 50
    torch.testing.assert_close(
        krylov.projected, (krylov.basis @ matrix @ krylov.basis.T).double(), rtol=0, atol=50 * tolerance
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_residuals_are_true(dtype, tolerance, symmetric):
    matrix = network_like(200, dtype, symmetric)
    krylov = grown(matrix, 25)
    krylov.explore(3)
    values, errors, columns = krylov.ritz()
    vectors = krylov.vectors(columns)
    for value, error, vector in zip(values, errors, vectors, strict=True):
        # the residual by hand, up to rounding, relative to the largest product
        assert float((matrix @ vector - value.to(dtype) * vector).norm()) == pytest.approx(
            float(error), abs=50 * tolerance
        )
    true = torch.linalg.eigvalsh(matrix.double())
    near = (true[:, None] - values).abs().min(dim=0).values
    assert bool((near <= errors + 50 * tolerance).all())  # an eigenvalue lies within the residual of each


def test_one_vector_gives_a_tridiagonal_matrix(symmetric):
    krylov = grown(network_like(100, torch.float64, symmetric), 12)
    krylov.explore(4)
    chain = krylov.first_chain
    assert chain.shape == (12, 12) and krylov.products == 16 and krylov.explored == [12]
    assert float((chain.triu(2)).abs().max()) < 1e-12 * 50  # float64


def test_an_equal_eigenvalue_is_hidden_until_it_is_explored(symmetric):
    matrix = symmetric(torch.tensor([5.0, 5.0, 5.0, *torch.linspace(-1, 1, 40).tolist()]))
    krylov = grown(matrix, 14)
    assert int((krylov.ritz()[0] > 4.9).sum()) == 1  # one vector sees one direction of each eigenspace
    krylov.explore(3)
    krylov.explore(3)
    for _ in range(6):
        krylov.grow(krylov.ritz()[2][:, -3])
    # a direction that is new has come near in a few products
    assert krylov.ritz()[0][-3:].tolist() == pytest.approx([5.0] * 3, rel=1e-3)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_of_the_identity_every_vector_is_the_end_of_a_chain(size):
    krylov = grown(torch.eye(size, dtype=torch.float64), 100)
    assert krylov.products == size and krylov.complete and not krylov.grow()
    assert krylov.ritz()[0].tolist() == pytest.approx([1.0] * size) and float(krylov.ritz()[1].max()) < 1e-12


def test_of_zero():
    krylov = grown(torch.zeros(4, 4), 100)
    assert krylov.complete and krylov.ritz()[0].tolist() == [0.0] * 4 and krylov.ritz()[1].tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_rank_one(dtype):
    vector = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=dtype)
    krylov = grown(torch.outer(vector, vector), 100)
    assert krylov.complete
    values = krylov.ritz()[0]
    eps = torch.finfo(dtype).eps
    assert float(values[-1]) == pytest.approx(float(vector @ vector), rel=20 * eps)
    assert float(values[:-1].abs().max()) < 100 * eps * float(values[-1])  # rounding


def test_of_one_number():
    krylov = grown(torch.tensor([[3.0]]), 5)
    assert krylov.products == 1 and krylov.complete and krylov.ritz()[0].tolist() == [3.0]


def test_it_stays_outside_of_what_is_known(symmetric):
    matrix = network_like(60, torch.float64, symmetric)
    values, vectors = torch.linalg.eigh(matrix)
    krylov = grown(matrix, 100, within=vectors[:, -4:].T)
    assert krylov.products == 56 and krylov.complete
    torch.testing.assert_close(krylov.ritz()[0], values[:-4], rtol=1e-9, atol=1e-12)  # float64
    assert float((krylov.basis @ vectors[:, -4:]).abs().max()) < 1e-12


def test_a_given_start_is_the_first_vector():
    matrix, start = torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([0.0, 2.0, 0.0])
    krylov = Krylov(Dense(matrix), start=start)
    krylov.grow()
    assert krylov.basis.tolist() == [[0.0, 1.0, 0.0]] and krylov.ritz()[0].tolist() == [2.0]
    assert not krylov.complete and krylov.grow()  # a random vector goes on where the chain ends


def test_of_a_start_without_length_another_is_drawn():
    krylov = Krylov(Dense(torch.eye(3)), start=torch.zeros(3))
    assert krylov.grow() and float(krylov.basis.norm()) == pytest.approx(1, rel=1e-6)
