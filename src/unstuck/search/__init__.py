"""Search for hyper-parameters, architectures and recurrent cells.

The road, one way:

    space -> sampler -> proposal -> child -> outcome -> log -> sampler, and at the end -> answer -> report

- A **space** (`space`) is a function that draws one decision after the other. What it gives back describes a program.
- A **sampler** (`samplers/`, `sampling`) proposes points of a space and is told how good they were. It knows nothing of training.
- A **problem** (`problems`) makes a job of a point: a script with changes and arguments, a training made by a user's function, or a
  function that gives a number. Jobs are made by the executors that `cure` uses: inline, processes, Ray.
- A **child** (`child`) is a training that is watched, that can be broken off and gone on with, epoch by epoch.
- `halving` says which children go on. `journal` is the only state: a file to which lines are added. Going on after a kill reads it.
- `searching` is the visit, read from top to bottom: search beside a random control, fresh seeds for the best, the `answer`.
- `convolutional`, `recurrent_cell`: spaces of networks that give modules, and their source; `drawing` draws them.
- `policy`, `learner`, `controller`: the RNN controller and how it learns; `shards`, `replicas`, `distributed`, `on_ray`: the same, spread
  over parameter servers and replicas.
- `importance`, `export`: what is told and written of an answer.
"""
