"""Shortcuts beside the main path: convolutions on a CUDA stream of their own."""

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from helpers.annex.variants import network as rewritten


class Aside(nn.Module):
    """A convolution on a stream of its own: `aside(x)` begins it, `aside(x, begun)` waits for it.

    `x`, which it reads, is an argument of the latter so that its memory is not given away before.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv, self.stream = conv, None

    def forward(self, x: torch.Tensor, begun: torch.Tensor | None = None) -> torch.Tensor:
        if not x.is_cuda:
            return self.conv(x) if begun is None else begun
        callers = torch.cuda.current_stream(x.device)
        if begun is not None:
            callers.wait_stream(self.stream)
            return begun
        self.stream = self.stream or torch.cuda.Stream(x.device)
        self.stream.wait_stream(callers)
        with torch.cuda.stream(self.stream):
            return self.conv(x)


def overlap_shortcuts(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold batch-norms, then run the convolutions on shortcuts beside the main path.

    A captured graph keeps the two paths as branches, and a GPU that one small kernel leaves mostly
    idle runs both at once. A shortcut's convolution reads what the main path reads too, and is
    added to what that makes of it. One whose input is overwritten in place stays where it is.
    """
    already = any(isinstance(module, rewritten.ConvEpilogue) for module in network.modules())
    traced = network if already else fuse(network, inplace=True)
    modules = dict(traced.named_modules())
    shortcuts = [node for node in traced.graph.nodes if _is_shortcut(node, modules)]
    unchanged = _Unchanged(traced, garbage_collect_values=False).by(example) if shortcuts else set()
    movable = [node for node in shortcuts if node.args[0] in unchanged]
    if not movable:
        raise rewritten.VariantFailed("nothing_to_change", part="overlap")
    for node in movable:
        source, (user,), conv = node.args[0], node.users, modules[node.target]
        name = f"{node.target}_aside"
        traced.add_submodule(name, Aside(conv))
        with traced.graph.inserting_after(source):
            begun = traced.graph.call_module(name, (source,))
        with traced.graph.inserting_before(user):
            user.replace_input_with(node, traced.graph.call_module(name, (source, begun)))
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _is_shortcut(node: fx.Node, modules: dict) -> bool:
    if rewritten.lone_conv(node, modules) is None or len(node.args[0].users) < 2:
        return False
    (user,) = node.users
    values = [term for term in user.args if isinstance(term, fx.Node)]
    if rewritten.is_call(user, (), rewritten.ConvEpilogue, modules):
        return values[1:] == [node]  # its residual
    return rewritten.is_call(user, rewritten.ADDITIONS, (), modules) and len(values) == 2


class _Unchanged(fx.Interpreter):
    """Runs a network once and finds the values that nothing writes to after they are made.

    Views and aliases share a tensor's version counter, so that a write through one is seen too.
    """

    def by(self, example: torch.Tensor) -> set[fx.Node]:
        self.versions: dict[fx.Node, int] = {}
        self.run(example.clone())  # a tensor of inference mode has no version
        return {node for node, seen in self.versions.items() if self.env[node]._version == seen}

    def run_node(self, node: fx.Node):
        result = super().run_node(node)
        if isinstance(result, torch.Tensor):
            self.versions[node] = result._version
        return result
