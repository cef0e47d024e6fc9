"""Models that a GPU clock may misread; `-p model benchmarks.elsewhere.models:own_stream`."""

import torch
from torch import nn
from torchvision.models import efficientnet_v2_l, resnet18


class OwnStream(nn.Module):
    """Computes on a stream of its own and waits for it on the host, as some servers do."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.stream = network, None

    def forward(self, x):
        if x.device.type != "cuda":
            return self.network(x)
        self.stream = self.stream or torch.cuda.Stream()
        with torch.cuda.stream(self.stream):
            y = self.network(x)
        self.stream.synchronize()
        return y


class Joined(OwnStream):
    """Forks and joins by events: whoever watches the caller's stream sees the work."""

    def forward(self, x):
        if x.device.type != "cuda":
            return self.network(x)
        self.stream, callers = self.stream or torch.cuda.Stream(), torch.cuda.current_stream()
        self.stream.wait_stream(callers)
        with torch.cuda.stream(self.stream):
            y = self.network(x)
        callers.wait_stream(self.stream)
        return y


def own_stream() -> nn.Module:
    """ResNet-18 on a stream of its own, not joined."""
    return OwnStream(resnet18(num_classes=10))


def joined() -> nn.Module:
    """ResNet-18 on a stream of its own, joined by an event."""
    return Joined(resnet18(num_classes=10))


def long_queue() -> nn.Module:
    """EfficientNet-V2-L: 1,140 launches a forward, more than the launch queue holds."""
    return efficientnet_v2_l(num_classes=10)
