"""Shortcuts beside the main path: convolutions on a CUDA stream of their own."""

import torch
from torch import fx, nn

from helpers.annex.variants.network import (
    ADDITIONS,
    ConvEpilogue,
    NothingToChange,
    add_module,
    fold_batch_norm,
    is_call,
    lone_conv,
)

NOTHING = "le modèle n'a aucune convolution sur un raccourci"


class Aside(nn.Module):
    """A convolution on a CUDA stream of its own, beside what the caller's stream goes on with."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv, self.stream = conv, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The result may only be used after `Joined`."""
        if not x.is_cuda:
            return self.conv(x)
        self.stream = self.stream or torch.cuda.Stream(x.device)
        self.stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(self.stream):
            return self.conv(x)


class Joined(nn.Module):
    """The caller's stream waits for an `Aside`."""

    def __init__(self, aside: Aside):
        super().__init__()
        self.aside = aside

    def forward(self, result: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`x`, which `Aside` reads, is an argument so that its memory is not given away before."""
        if result.is_cuda:
            torch.cuda.current_stream(result.device).wait_stream(self.aside.stream)
        return result


def overlap_shortcuts(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold batch-norms, then run the convolutions on shortcuts beside the main path.

    A captured graph keeps the two paths as branches, and a GPU that one small kernel leaves mostly
    idle runs both at once. A shortcut's convolution reads what the main path reads too, and is
    added to what that makes of it. One whose input is overwritten meanwhile stays where it is.

    Raises
    ------
    NothingToChange
        There is no such convolution.
    """
    already = any(isinstance(module, ConvEpilogue) for module in network.modules())
    traced = network if already else fold_batch_norm(network, example)
    modules = dict(traced.named_modules())
    shortcuts = [node for node in traced.graph.nodes if _is_shortcut(node, modules)]
    overwritten = _Overwritten(traced, shortcuts).found(example)
    if not (movable := [node for node in shortcuts if node not in overwritten]):
        raise NothingToChange(NOTHING)
    for node in movable:
        _put_aside(traced, modules, node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _is_shortcut(node: fx.Node, modules: dict) -> bool:
    if lone_conv(node, modules) is None or len(node.args[0].users) < 2:
        return False
    (user,) = node.users
    values = [term for term in user.args if isinstance(term, fx.Node)]
    if is_call(user, (), ConvEpilogue, modules):
        return values[1:] == [node]  # its residual
    return is_call(user, ADDITIONS, (), modules) and len(values) == 2


class _Overwritten(fx.Interpreter):
    """Runs a network once and finds the shortcuts whose input has changed when they are added.

    Views and aliases share a tensor's version counter, so that a write through one is seen too.
    """

    def __init__(self, traced: fx.GraphModule, shortcuts: list[fx.Node]):
        super().__init__(traced, garbage_collect_values=False)
        self._shortcuts, self._found = shortcuts, set()
        self._versions = dict.fromkeys(node.args[0] for node in shortcuts)

    def found(self, example: torch.Tensor) -> set[fx.Node]:
        """The shortcuts that must stay where they are."""
        self.run(example.clone())  # a tensor of inference mode has no version
        return self._found

    def run_node(self, node: fx.Node):
        """Run one node; see what it has made, and whether a shortcut's input is still the same."""
        result = super().run_node(node)
        if node in self._versions:
            self._versions[node] = result._version
        for shortcut in self._shortcuts:
            source = shortcut.args[0]
            if node in shortcut.users and self.env[source]._version != self._versions[source]:
                self._found.add(shortcut)
        return result


def _put_aside(traced: fx.GraphModule, modules: dict, node: fx.Node) -> None:
    source, (user,), aside = node.args[0], node.users, Aside(modules[node.target])
    begin = add_module(traced, modules, f"{node.target}_aside", aside)
    join = add_module(traced, modules, f"{node.target}_joined", Joined(aside))
    with traced.graph.inserting_after(source):
        begun = traced.graph.call_module(begin, (source,))
    with traced.graph.inserting_before(user):
        joined = traced.graph.call_module(join, (begun, source))
    user.replace_input_with(node, joined)
    traced.graph.erase_node(node)
