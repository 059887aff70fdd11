import traceback
import warnings

import torch
from torch.overrides import TorchFunctionMode

from unstuck.watcher.transparent import FILENAME, Relocation, strip, transparent, without_ours


@transparent
def wrapper(function, *args):
    return function(*args)


def warn():
    warnings.warn("look", stacklevel=2)


def fail():
    raise ValueError("no")


def test_warnings_name_the_callers_line():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        wrapper(warn)
        warn()
    through, plain = seen
    assert through.filename == plain.filename == __file__


def test_relocations_that_end_in_another_order_leave_the_display_as_it_was():
    before = warnings._showwarnmsg
    one, other = Relocation(), Relocation()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        one.switch_on()
        other.switch_on()
        one.switch_off()
        wrapper(warn)
        other.switch_off()
        wrapper(warn)
        one.switch_on()
        one.switch_off()
    assert [w.filename for w in seen] == [__file__] * 2
    assert warnings._showwarnmsg is before


def test_traceback_shows_only_the_users_frames():
    try:
        wrapper(wrapper, fail)
    except ValueError as error:
        assert FILENAME in {f.filename for f in traceback.extract_tb(error.__traceback__)}
        names = [f.name for f in traceback.extract_tb(without_ours(error.__traceback__))]
    assert names == ["test_traceback_shows_only_the_users_frames", "fail"]


def test_chained_exceptions_are_stripped_too():
    try:
        try:
            wrapper(fail)
        except ValueError as first:
            raise KeyError("then") from first
    except KeyError as error:
        strip(error)
        frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert FILENAME not in {f.filename for f in frames}


class Passing(TorchFunctionMode):
    @transparent
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def lines_of(call):
    try:
        call()
    except (RuntimeError, TypeError, ValueError) as error:
        return [(f.filename, f.lineno) for f in traceback.extract_tb(without_ours(error.__traceback__))]
    raise AssertionError("it should have failed")


def test_torch_functions_written_in_python_show_no_second_call():
    def broken():
        torch.nn.functional.relu(torch.ones(2, dtype=torch.bool) * torch.ones(3))

    def broken_inside():
        torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(5, dtype=torch.long))

    for call in (broken, broken_inside):
        plain = lines_of(call)
        with Passing():
            assert lines_of(call) == plain
