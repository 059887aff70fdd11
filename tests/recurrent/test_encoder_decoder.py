from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent.encoder_decoder import Encoder, EncoderDecoder

LAYERS = [nn.GRU, nn.LSTM, nn.RNN]


def model(**options) -> EncoderDecoder:
    torch.manual_seed(0)
    settings = {"embedding_size": 6, "hidden_size": 8} | options
    return EncoderDecoder(7, 9, **settings).double()


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([5, 2, 1])
    source = torch.randint(1, 7, (3, 5), generator=generator) * (torch.arange(5) < lengths[:, None])
    target = torch.randint(3, 9, (3, 4), generator=generator)
    target[0, 3] = target[1, 2] = 2
    target[1, 3] = 0
    return source, lengths, target


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("levels", [1, 2])
def test_the_encoder_is_torch_s_on_packed_sequences(layer, levels):
    torch.manual_seed(0)
    encoder = Encoder(3, 4, num_levels=levels, layer=layer).double()
    packed = layer(3, 4, num_layers=levels, bidirectional=True, batch_first=True).double()
    for level in range(levels):
        for own, suffix in ((encoder.forwards[level], ""), (encoder.backwards[level], "_reverse")):
            for name, parameter in own.named_parameters():
                getattr(packed, name.replace("l0", f"l{level}{suffix}")).data = parameter.data
    inputs, lengths = torch.randn(3, 5, 3, dtype=torch.float64), torch.tensor([2, 5, 1])
    states, last = encoder(inputs, lengths)
    sequence = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    wanted, final = packed(sequence)
    final = final[0] if isinstance(final, tuple) else final
    wanted, _ = nn.utils.rnn.pad_packed_sequence(wanted, batch_first=True)
    torch.testing.assert_close(states, wanted, rtol=1e-12, atol=1e-14)  # float64
    torch.testing.assert_close(last, torch.cat([final[-2], final[-1]], dim=1), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("attention", ["additive", "general", "dot"])
def test_what_is_padded_changes_nothing(layer, attention):
    seq2seq = model(layer=layer, attention=attention, num_layers=2)
    source, lengths, target = batch()
    together = seq2seq(source, lengths, target)
    for i, length in enumerate(lengths.tolist()):
        alone = seq2seq(source[i : i + 1, :length], lengths[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)  # float64


@pytest.mark.parametrize("layer", LAYERS)
def test_a_logit_knows_only_the_tokens_before_it(layer):
    seq2seq, (source, lengths, target) = model(layer=layer), batch()
    changed = target.clone()
    changed[:, 2] = 3 + (changed[:, 2] + 1) % 6
    before, after = seq2seq(source, lengths, target), seq2seq(source, lengths, changed)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.equal(before[:, 3], after[:, 3])


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("width", [1, 4])
def test_decoded_log_probabilities_are_those_of_the_teacher_forced_model(layer, width):
    seq2seq, (source, lengths, _) = model(layer=layer, num_layers=2), batch()
    decoded = seq2seq.decode(source, lengths, max_length=6, width=width, num_best=width)
    for rank in range(width):
        for i, tokens in enumerate(decoded.sequences(rank)):
            assert not {0, 1, 2} & set(tokens)
            whole = torch.tensor([*tokens, 2][:6])[None]
            with torch.no_grad():
                logits = seq2seq(source[i : i + 1], lengths[i : i + 1], whole)
            logits[:, :, :2] = -torch.inf  # padding and start are never decoded
            true = logits.log_softmax(2).gather(2, whole[:, :, None]).sum()
            assert float(decoded.log_probs[i, rank]) == pytest.approx(float(true), rel=1e-10)  # float64


def test_the_loss_is_the_mean_over_real_tokens():
    seq2seq, (source, lengths, target) = model(), batch()
    log_probs = seq2seq(source, lengths, target).log_softmax(2)
    costs = [-log_probs[b, t, target[b, t]] for b in range(3) for t in range(4) if target[b, t] != 0]
    assert len(costs) == 11
    assert seq2seq.loss(source, lengths, target).item() == pytest.approx(sum(costs).item() / 11, rel=1e-12)  # float64


def test_weights_lie_on_real_positions_and_add_up_to_one():
    seq2seq, (source, lengths, target) = model(dropout=0.5), batch()
    weights = seq2seq.weights(source, lengths, target)
    assert weights.shape == (3, 4, 5) and not weights.requires_grad
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 4, dtype=torch.float64))
    assert all(float(weights[i, :, length:].sum()) == 0 for i, length in enumerate(lengths.tolist()))
    assert torch.equal(weights, seq2seq.weights(source, lengths, target))  # no dropout


def test_decoding_has_no_dropout_and_leaves_modes_as_they_were():
    seq2seq, (source, lengths, _) = model(dropout=0.5), batch()
    seq2seq.encoder.eval()
    modes = [module.training for module in seq2seq.modules()]
    first, again = (seq2seq.decode(source, lengths, max_length=5, width=3) for _ in range(2))
    assert torch.equal(first.scores, again.scores)
    assert [module.training for module in seq2seq.modules()] == modes and len(set(modes)) == 2
    with pytest.raises(IndexError):
        seq2seq.decode(source + 99, lengths, max_length=5)
    assert [module.training for module in seq2seq.modules()] == modes


@pytest.mark.parametrize("layer", LAYERS)
def test_every_parameter_learns(layer):
    seq2seq = model(layer=layer, num_layers=2)
    seq2seq.loss(*batch()).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in seq2seq.parameters())


def test_misuse_is_told():
    with pytest.raises(MisuseError, match="'dots'.*'additive', 'general', 'dot'"):
        model(attention="dots")
    with pytest.raises(MisuseError, match="hidden_size is 7"):
        model(hidden_size=7)
    with pytest.raises(MisuseError, match="nothing to attend to"):
        model()(torch.zeros(1, 3, dtype=torch.long), torch.tensor([0]), torch.tensor([[2]]))


def reversals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    lengths = torch.randint(2, 6, (count,), generator=generator)
    source = torch.randint(3, 9, (count, 5), generator=generator) * (torch.arange(5) < lengths[:, None])
    target = torch.zeros(count, 6, dtype=torch.long)
    for row, length in enumerate(lengths.tolist()):
        target[row, :length] = source[row, :length].flip(0)
        target[row, length] = 2
    return source, lengths, target


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["additive", "general", "dot"])
def test_it_learns_to_reverse_and_attends_from_the_end_to_the_beginning(attention):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    seq2seq = EncoderDecoder(9, 9, embedding_size=16, hidden_size=48, attention=attention)
    optimizer = torch.optim.Adam(seq2seq.parameters(), lr=1e-2)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        loss = seq2seq.loss(*reversals(32, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(seq2seq.parameters(), 1.0)
        optimizer.step()
    source, lengths, target = reversals(200, generator)
    wanted = [row[:length].tolist() for row, length in zip(target, lengths.tolist(), strict=True)]
    for width in (1, 4):
        decoded = seq2seq.decode(source, lengths, max_length=8, width=width)
        right = sum(a == b for a, b in zip(decoded.sequences(), wanted, strict=True))
        assert right == 200
        assert math.exp(float(decoded.scores.mean())) > 0.9
