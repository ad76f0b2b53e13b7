"""Sharing out frozen weights, as far as one process shows it; two do in `test_in_two_processes.py`."""

import logging

import pytest
import torch
from torch import nn

from models.training.processes import Processes
from models.training.shards import frozen_in_shards


@pytest.mark.parametrize("frozen", ["nothing", "outside of blocks", "whole numbers"])
def test_what_cannot_be_shared_out_stays_whole(frozen: str, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says so."""
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 3)]), "head": nn.Linear(3, 3)})
    if frozen == "outside of blocks":
        model["head"].requires_grad_(False)
    elif frozen == "whole numbers":
        model["blocks"][0].codes = nn.Parameter(torch.arange(9), requires_grad=False)
    before = dict(model.named_parameters())
    with caplog.at_level(logging.INFO), frozen_in_shards(model, Processes(0, 2)):
        inside = dict(model.named_parameters())
    assert all(inside[name] is before[name] for name in before)
    assert caplog.messages == ["no block's weights are frozen: each of 2 processes holds the whole model"]
