"""What lies under a loss: products with its Hessian, its spectrum, what kind of point it rests at, and which step it bears.

    loss, tensors, batches -> Objective -> Hessian (a product with a vector) -> Krylov (one run of Lanczos)
                                  |                                                |
                                  |                                                +-> extremes, trace, density, counts
                                  +-> gradient, its noise, losses along a line     +-> critical point, escape, stable rates, surface

`objective.py` alone knows what a loss is made of: batches, weights, modes, random numbers, ranks. `products.py` alone differentiates
twice. Everything after works on anything that has a size and multiplies a vector (`products.Operator`), so a symmetric
matrix will do, which is what the tests compare against. A run of Lanczos is paid for once and asked many things.
"""
