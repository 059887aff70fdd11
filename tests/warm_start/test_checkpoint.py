"""What fits is loaded bit by bit, the rest is told, and nothing is changed where it fails."""

from __future__ import annotations

import importlib.util
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.errors import MissingError, MisuseError
from unstuck.warm_start.checkpoint import load


def network(classes: int = 5, channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 4, 3, bias=False), norm=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(), inner=nn.Linear(4, 6),
        )
    )  # fmt: skip
    model = nn.Sequential(OrderedDict(body=body, head=nn.Linear(6, classes)))
    model(torch.randn(8, channels, 5, 5))  # statistics that are not those of the start
    return model


def states(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def prefixed(state, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


# ---------------------------------------------------------------------- all fits


def test_it_is_what_load_state_dict_does_where_all_fits():
    ours, theirs, old = network(seed=1), network(seed=1), network(seed=2)
    theirs.load_state_dict(old.state_dict())
    found = load(ours, old.state_dict(), strict=True)
    assert same(ours, theirs.state_dict())
    assert found.loaded == tuple(old.state_dict())  # running statistics and the number of batches among them
    assert (found.left, found.unused, found.prefix) == ({}, (), ("", ""))
    assert str(found) == "loaded 10 of 10 tensors"


def test_parameters_stay_the_objects_that_an_optimizer_knows():
    model = network(seed=1)
    before = [id(p) for p in model.parameters()]
    load(model, network(seed=2).state_dict())
    assert [id(p) for p in model.parameters()] == before
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "holder",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "loss": torch.tensor(0.5)},
        lambda s: {"model": {"state_dict": s}, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        lambda s: {"model_state_dict": s, "ema": s},
        lambda s: {"something": s},
    ],
    ids=["itself", "state_dict", "nested", "beside another", "unusual"],
)
def test_the_state_dict_is_found_in_what_people_save(holder):
    model, old = network(seed=1), network(seed=2)
    load(model, holder(old.state_dict()), strict=True)
    assert same(model, old.state_dict())


def test_of_several_state_dicts_it_is_said_which():
    model, old = network(seed=1), network(seed=2)
    checkpoint = {"teacher": network(seed=3).state_dict(), "student": {"best": old.state_dict()}}
    with pytest.raises(MisuseError, match=r"several state dicts, teacher, student: say by key="):
        load(model, checkpoint)
    load(model, checkpoint, key="student.best")
    assert same(model, old.state_dict())
    with pytest.raises(MisuseError, match=r"no key 'pupil'; there is teacher, student"):
        load(model, checkpoint, key="pupil")


def test_another_model_is_a_checkpoint():
    model, old = network(seed=1), network(seed=2)
    load(model, old, strict=True)
    assert same(model, old.state_dict())


# ---------------------------------------------------------------------- prefixes


@pytest.mark.slow
@pytest.mark.parametrize(
    "there", ["", "module.", "_orig_mod.", "model.", "model.module.", "lightning.net.", "_orig_mod.module."]
)
@pytest.mark.parametrize("here", ["", "module.", "net", "compiled"])
def test_prefixes_of_wrappers_are_found_on_both_sides(there, here):
    plain, old = network(seed=1), network(seed=2)
    wrapped = {
        "": lambda: plain,
        "module.": lambda: nn.DataParallel(plain),
        "net": lambda: nn.ModuleDict({"net": plain}),
        "compiled": lambda: torch.compile(plain, backend="eager"),
    }[here]()
    load(wrapped, prefixed(old.state_dict(), there), strict=True)
    assert same(plain, old.state_dict())


def test_what_torch_inserts_within_names_does_not_matter():
    model, old = network(seed=1), network(seed=2)
    written = {name.replace("body.", "body._orig_mod."): value for name, value in old.state_dict().items()}
    load(model, written, strict=True)
    assert same(model, old.state_dict())


def test_a_part_is_found_by_the_prefix_with_which_most_fits():
    model, old = network(seed=1), network(seed=2)
    whole = prefixed(old.state_dict(), "encoder.") | {"decoder.weight": torch.ones(3), "head.bias": torch.ones(5)}
    found = load(model, whole)
    assert same(model, old.state_dict())
    assert found.prefix == ("encoder.", "")
    assert found.unused == ("decoder.weight", "head.bias")
    assert "'encoder.…' of the checkpoint as '…'" in str(found)


def test_two_parts_that_fit_equally_well_are_not_guessed_between():
    model, old = network(seed=1), network(seed=2)
    both = prefixed(network(seed=3).state_dict(), "first.") | prefixed(old.state_dict(), "second.")
    before = states(model)
    with pytest.raises(MisuseError, match=r"'first\.'.*'second\.'.*say by prefix="):
        load(model, both)
    assert same(model, before)
    load(model, both, prefix="second")
    assert same(model, old.state_dict())


def test_the_places_on_both_sides_can_be_said():
    model = nn.ModuleDict({"left": network(seed=1), "right": network(seed=4)})
    old, before = network(seed=2), states(model["left"])
    found = load(model, prefixed(old.state_dict(), "module."), prefix=("module.", "right."))
    assert same(model["right"], old.state_dict()) and same(model["left"], before)
    assert set(found.left.values()) == {"not in the checkpoint"}
    with pytest.raises(MisuseError, match="prefix is"):
        load(model, old, prefix=("a", "b", "c"))  # pyright: ignore


def test_layers_of_equal_shape_elsewhere_are_not_taken_for_one_another():
    old = nn.ModuleDict({"one": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))})
    new = nn.ModuleDict({"two": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))})
    before = states(new)
    with pytest.raises(
        MisuseError, match=r"0 of 4 tensors fit; the checkpoint has names like one\.0\.weight.* against two\.0\.weight"
    ):
        load(new, old.state_dict())
    assert same(new, before)
    load(new, old.state_dict(), rename={"one": "two"}, strict=True)
    assert same(new, prefixed(old["one"].state_dict(), "two."))


# ---------------------------------------------------------------------- other names


def test_beginnings_are_renamed_by_whole_segments():
    model, old = network(seed=1), network(seed=2)
    written = {name.replace("head.", "fc."): value for name, value in old.state_dict().items()} | {
        "fc2.weight": torch.ones(1)
    }
    found = load(model, written, rename={"fc": "head"})
    assert same(model, old.state_dict())
    assert found.unused == ("fc2.weight",)


def test_what_is_renamed_to_none_is_left_out_though_it_would_fit():
    model, old = network(seed=1), network(seed=2)
    before = states(model)
    found = load(model, old.state_dict(), rename={"head": None})
    assert torch.equal(model.head.weight, before["head.weight"])
    assert found.left == {"head.weight": "not in the checkpoint", "head.bias": "not in the checkpoint"}
    assert found.unused == ("head.bias", "head.weight")


def test_a_function_renames():
    model, old = network(seed=1), network(seed=2)
    written = {name.upper(): value for name, value in old.state_dict().items()}
    load(model, written, rename=str.lower, strict=True)
    assert same(model, old.state_dict())


def test_a_name_that_is_not_there_and_two_that_become_one_are_refused():
    model, old = network(seed=1), network(seed=2)
    with pytest.raises(MisuseError, match=r"begins with 'haed', .*did you mean 'head'\?"):
        load(model, old.state_dict(), rename={"haed": "head"})
    with pytest.raises(
        MisuseError, match=r"'body\.conv\.weight' and 'body\.norm\.weight' of the checkpoint both become 'x'"
    ):
        load(model, old.state_dict(), rename=lambda name: "x" if name.endswith("weight") else name)


# ---------------------------------------------------------------------- shapes and kinds


def test_a_head_of_other_classes_is_left_with_its_bias():
    model, old = network(classes=10, seed=1), network(classes=5, seed=2)
    before = states(model)
    found = load(model, old.state_dict())
    assert found.left == {
        "head.weight": "(10, 6) here, (5, 6) in the checkpoint",
        "head.bias": "(10,) here, (5,) in the checkpoint",
    }
    assert torch.equal(model.head.weight, before["head.weight"]) and torch.equal(model.head.bias, before["head.bias"])
    assert same(model.body, old.body.state_dict())
    assert "left as they start: head.weight ((10, 6) here, (5, 6) in the checkpoint)" in str(found)


def test_a_bias_does_not_go_without_its_weight():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    old = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(6, 2))
    before = states(model)
    found = load(model, old.state_dict())
    assert found.left == {"2.weight": "(2, 4) here, (2, 6) in the checkpoint", "2.bias": "as its weight is"}
    assert torch.equal(model[2].bias, before["2.bias"])


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_can_take_other_channels(channels):
    model, old = network(channels=channels, seed=1), network(seed=2)
    found = load(model, old.state_dict())
    assert found.left == {"body.conv.weight": f"(4, {channels}, 3, 3) here, (4, 3, 3, 3) in the checkpoint"}
    load(model, old.state_dict(), input_channels="sum", strict=True)
    grey = torch.rand(2, 1, 5, 5)  # the same picture in all channels gives the same response
    torch.testing.assert_close(
        model.eval()(grey.expand(-1, channels, -1, -1)), old.eval()(grey.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-6
    )
    load(model, old.state_dict(), input_channels="mean", strict=True)
    for channel in range(channels):
        torch.testing.assert_close(model.body.conv.weight[:, channel], old.body.conv.weight.mean(dim=1))
    with pytest.raises(MisuseError, match="input_channels is 'max'"):
        load(model, old.state_dict(), input_channels="max")  # pyright: ignore


def test_position_embeddings_are_not_resized():
    model, old = nn.Embedding(12, 4), nn.Embedding(10, 4)
    model, old = nn.ModuleList([model, nn.Linear(4, 4)]), nn.ModuleList([old, nn.Linear(4, 4)])
    before = states(model)
    found = load(model, old.state_dict())
    assert found.left == {"0.weight": "(12, 4) here, (10, 4) in the checkpoint"}
    assert torch.equal(model[0].weight, before["0.weight"])


def test_it_comes_in_the_precision_of_the_model():
    model, old = network(seed=1).bfloat16(), network(seed=2)
    found = load(model, old.state_dict())
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert torch.equal(model.head.weight, old.head.weight.bfloat16())
    assert found.converted == 9 and "9 of them converted to another precision" in str(
        found
    )  # all but num_batches_tracked


def test_other_kinds_of_numbers_are_not_converted():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = model.state_dict() | {"1.weight": torch.ones(2, 2, dtype=torch.int8)}
    assert load(model, state).left["1.weight"] == "float32 here, int8 in the checkpoint"


# ---------------------------------------------------------------------- tied parameters


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_one_name_of_a_tied_parameter_is_enough(name):
    model, old = Tied(1), Tied(2)
    found = load(model, {name: old.embed.weight}, strict=True)
    assert torch.equal(model.embed.weight, old.embed.weight) and model.head.weight is model.embed.weight
    assert found.loaded == ("embed.weight", "head.weight")


def test_two_values_for_one_parameter_are_refused():
    model, before = Tied(1), Tied(1).embed.weight
    untied = {"embed.weight": torch.ones(7, 3), "head.weight": torch.zeros(7, 3)}
    with pytest.raises(
        MisuseError, match=r"embed\.weight and head\.weight are one tensor here, .* rename=\{'head\.weight': None\}"
    ):
        load(model, untied)
    assert torch.equal(model.embed.weight, before)
    load(model, untied, rename={"head.weight": None})
    assert torch.equal(model.head.weight, torch.ones(7, 3))


# ---------------------------------------------------------------------- what fails changes nothing


def spoilt(value: float, name: str = "head.bias") -> dict[str, torch.Tensor]:
    state = states(network(seed=2))  # the one that is spoilt comes last
    state[name] = torch.full_like(state[name], value)
    return state


@pytest.mark.parametrize(
    ("made", "options", "says"),
    [
        (lambda: spoilt(float("nan")), {}, r"head\.bias of the checkpoint is NaN or infinite"),
        (lambda: network(classes=9).state_dict(), {"strict": True}, r"not all fits: head\.weight .* would be left"),
        (lambda: network().state_dict() | {"x": torch.ones(1)}, {"strict": True}, "x of the checkpoint not used"),
        (lambda: {"body.conv.weight": torch.ones(1)}, {}, r"0 of 10 tensors fit; 1 have the name and another shape: body\.conv"),
        (lambda: {"a.b": torch.ones(1)}, {}, r"0 of 10 tensors fit; the checkpoint has names like a\.b against body\.conv"),
        (
            lambda: {"head.bias": torch.ones(5), **{f"a{i}": torch.ones(1) for i in range(5)}},
            {},
            "1 of 10 tensors fit, less than least=0.5",
        ),
        (lambda: {"epoch": 3}, {}, "no state dict in the checkpoint; there is epoch"),
        (lambda: {}, {}, "no state dict in the checkpoint"),
        (lambda: {"0.weight": np.zeros(3)}, {}, r"holds arrays of numpy: give tensors, \{name: torch.from_numpy"),
        (lambda: [1, 2], {}, "the checkpoint is a list"),
        (lambda: network(), {"least": 2}, "least is 2"),
    ],
)  # fmt: skip
def test_it_says_what_is_wrong_and_leaves_the_model_alone(made, options, says):
    model = network(seed=1)
    before = states(model)
    with pytest.raises(MisuseError, match=says):
        load(model, made(), **options)
    assert same(model, before)


def test_what_is_too_large_for_the_models_precision_is_refused():
    model = network(seed=1).half()
    before = states(model)
    with pytest.raises(MisuseError, match=r"head\.bias of the checkpoint is too large for float16"):
        load(model, spoilt(1e6))
    assert same(model, before)


def test_little_can_be_enough_if_that_is_said():
    model = network(seed=1)
    few = {"head.bias": torch.ones(5), **{f"a{i}": torch.ones(1) for i in range(5)}}
    assert load(model, few, least=0.1).loaded == ("head.bias",)


def test_all_of_a_small_checkpoint_is_enough_of_a_large_model():
    body = prefixed(network(seed=2).body.state_dict(), "body.")
    model = network(seed=1)
    model.extra = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    assert len(load(model, body).loaded) == 8


def test_models_that_cannot_be_filled_are_told():
    state = network().state_dict()
    for model, says in (
        (nn.Sequential(nn.LazyLinear(3)), "has no shape yet"),
        (network().to("meta"), "call model.to_empty"),
        (nn.ReLU(), "no tensors that could be loaded"),
    ):
        with pytest.raises(MisuseError, match=says):
            load(model, state)


# ---------------------------------------------------------------------- files


class Harmless:
    made = 0

    def __setstate__(self, state: object) -> None:
        Harmless.made += 1


def test_a_file_is_read_without_running_what_is_in_it(tmp_path):
    file, model, old = tmp_path / "old.pt", network(seed=1), network(seed=2)
    torch.save({"model": old.state_dict(), "epoch": 3}, file)
    load(model, str(file), strict=True)
    assert same(model, old.state_dict())

    one = Harmless()
    one.x = 1
    torch.save({"model": old.state_dict(), "options": one}, file)
    with pytest.raises(MisuseError, match="trusted=True"):
        load(model, file)
    assert Harmless.made == 0
    load(model, file, trusted=True)
    assert Harmless.made == 1


def test_a_whole_model_in_a_file_that_is_trusted(tmp_path):
    file, model, old = tmp_path / "old.pt", network(seed=1), network(seed=2)
    torch.save({"model": old}, file)
    load(model, file, trusted=True, strict=True)
    assert same(model, old.state_dict())


def test_files_that_are_none(tmp_path):
    with pytest.raises(MisuseError, match="there is no file"):
        load(network(), tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(MisuseError, match="can't be read as a checkpoint|is no checkpoint"):
        load(network(), tmp_path / "text.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(MisuseError, match="can't be read"):
        load(network(), tmp_path / "empty.pt")


def test_safetensors_are_read_if_installed(tmp_path):
    file, model, old = tmp_path / "old.safetensors", network(seed=1), network(seed=2)
    if importlib.util.find_spec("safetensors") is None:
        file.touch()
        with pytest.raises(MissingError, match="pip install safetensors"):
            load(model, file)
        pytest.skip("safetensors isn't installed")
    from safetensors.torch import save_file

    save_file(old.state_dict(), file)
    load(model, file, strict=True)
    assert same(model, old.state_dict())
    file.write_bytes(b"nothing")
    with pytest.raises(MisuseError, match="can't be read"):
        load(model, file)


def test_the_list_is_short():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
    found = load(model, {name: value for name, value in model.state_dict().items() if name < "4"})
    assert re.search(r"left as they start: (4|5)\.\w+ \(not in the checkpoint\),.* and 4 more$", str(found))
