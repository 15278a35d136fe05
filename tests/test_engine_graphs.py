"""Recordings where there is no GPU to record on: what is done with a device, a pool, and a failure."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from idat_tune.engine import devices, graphs
from idat_tune.engine.graphs import Recorder

SECOND = torch.device("cuda:1")


class Pretended:
    """CUDA as far as a recorder touches it; notes what is done, and on which device."""

    def __init__(self):
        self.done, self.pools, self.current, self.failures, self.streams = [], 0, 0, [], []

    @contextmanager
    def device(self, device):
        before, self.current = self.current, torch.device(device).index
        yield
        self.current = before

    @contextmanager
    def graph(self, graph, pool, stream):
        self.done.append(("captured", self.current, pool, stream.on))
        self.streams.append(stream)
        yield
        if self.failures:
            raise self.failures.pop(0)

    def graph_pool_handle(self):
        self.pools += 1
        return self.pools

    def replaying(self):
        self.done.append(("replayed", self.current))


@pytest.fixture
def cuda(monkeypatch):
    pretended = Pretended()

    class Stream:
        def __init__(self):
            self.on = pretended.current

        def wait_stream(self, other):
            pass

    class Graph:
        replay = staticmethod(pretended.replaying)

    for name in ("device", "graph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, getattr(pretended, name))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(graphs, "broken", lambda device: False)
    return pretended


def test_a_step_is_recorded_on_its_own_device_and_in_a_stream_of_it(cuda):
    Recorder(SECOND).recorded(lambda: None, nullcontext)()
    assert cuda.done == [("captured", 1, 1, 1), ("replayed", 0)]


def test_recordings_share_memory_until_one_fails(cuda, caplog):
    recorder, calls = Recorder(SECOND), []
    recorder.recorded(lambda: None, nullcontext)
    cuda.failures = [RuntimeError("operation not permitted when stream is capturing\nand more")]
    step = recorder.recorded(lambda: calls.append(1), nullcontext)
    calls.clear()
    step()
    assert calls == [1]
    recorder.recorded(lambda: None, nullcontext)
    assert [pool for _, _, pool, _ in cuda.done] == [1, 1, 2]
    assert len(set(cuda.streams)) == 1  # else none could take what another leaves free
    assert recorder.failures == 1
    assert caplog.messages == [
        "steps cannot be recorded here, computing them one by one (number 1 of this process): "
        "operation not permitted when stream is capturing"
    ]


def test_a_recording_that_finds_no_room_fails_and_the_next_begins_anew(cuda):
    recorder = Recorder(SECOND)
    cuda.failures = [torch.OutOfMemoryError("CUDA out of memory")]
    with pytest.raises(torch.OutOfMemoryError):
        recorder.recorded(lambda: None, nullcontext)
    recorder.recorded(lambda: None, nullcontext)
    assert [pool for _, _, pool, _ in cuda.done] == [1, 2]
    assert recorder.failures == 0


def test_what_fails_because_the_device_is_gone_is_no_matter_of_recording(cuda, monkeypatch):
    monkeypatch.setattr(graphs, "broken", lambda device: True)
    cuda.failures = [torch.AcceleratorError("CUDA error: an illegal memory access was encountered")]
    with pytest.raises(RuntimeError, match="illegal memory access"):
        Recorder(SECOND).recorded(lambda: None, nullcontext)


def test_a_device_is_gone_if_it_fails_once_more(monkeypatch):
    def failing(failure):
        def synchronize(device):
            raise failure

        return synchronize

    assert not devices.broken(torch.device("cpu"))
    for failure, wanted in (
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
    ):
        monkeypatch.setattr(torch.cuda, "synchronize", failing(failure))
        assert devices.broken(SECOND) is wanted


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_gpu_records_while_the_first_is_current():
    value = torch.zeros(1, device=SECOND)
    step = Recorder(SECOND).recorded(lambda: value.add_(1), nullcontext)
    value.zero_()
    for _ in range(3):
        step()
    assert value.item() == 3
