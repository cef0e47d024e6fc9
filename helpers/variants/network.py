"""Networks rewritten for inference: the same function of the image, in fewer or cheaper kernels.

Every rewriting takes (network in FP32 and eval mode, example image batch) and returns a network; it
owns its argument, a copy that `helpers.variants.build` made.
"""

import operator

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
RELUS = (F.relu, torch.relu, torch.relu_, "relu", "relu_")


class Adapted(nn.Module):
    """FP32 NCHW image in, FP32 logits out, whatever the network's own type and memory layout."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, layout: torch.memory_format):
        super().__init__()
        self.network, self.dtype, self.layout = network, dtype, layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cast and change the layout in one kernel, run the network, cast the logits back."""
        return self.network(x.to(dtype=self.dtype, memory_format=self.layout)).float()


def fold_batch_norm(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold each batch-norm that follows a convolution or a linear layer into its weights."""
    return fuse(network, inplace=True)


def crop_to_image(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Cut the weights that only ever meet zero padding at the example's image size.

    Where a 3x3 convolution sees 1x1 pixel, eight of its nine taps multiply zeros; 32x32 images
    bring torchvision's ResNet-18 there in its last block, which holds three quarters of its
    weights. The result is exact for images of this size and wrong for others.
    """
    sizes: dict[nn.Module, set] = {}

    def record(module, inputs, output):
        sizes.setdefault(module, set()).add((inputs[0].shape[2:], output.shape[2:]))

    kinds = (nn.Conv2d, nn.AdaptiveAvgPool2d)
    hooks = [m.register_forward_hook(record) for m in network.modules() if isinstance(m, kinds)]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in list(network.named_modules()):
        if len(sizes.get(module, ())) != 1:  # never run, or at several sizes
            continue
        ((seen, made),) = sizes[module]
        if isinstance(module, nn.Conv2d):
            _crop(module, seen, made)
        elif seen == made:
            _replace(network, name, nn.Identity())
    return network


def _crop(conv: nn.Conv2d, seen: torch.Size, made: torch.Size) -> None:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return
    kept, padding = [], []
    for axis in range(2):
        stride, pad, step = conv.stride[axis], conv.padding[axis], conv.dilation[axis]
        used = [
            tap
            for tap in range(conv.kernel_size[axis])
            if any(0 <= o * stride - pad + tap * step < seen[axis] for o in range(made[axis]))
        ]
        first, last = used[0], used[-1]
        pad -= first * step
        size = (seen[axis] + 2 * pad - step * (last - first) - 1) // stride + 1
        if pad < 0 or size != made[axis]:  # nn.Conv2d pads both sides alike: not expressible
            return
        kept.append(slice(first, last + 1))
        padding.append(pad)
    conv.weight = nn.Parameter(conv.weight[:, :, kept[0], kept[1]].contiguous(), False)
    conv.kernel_size, conv.padding = tuple(conv.weight.shape[2:]), tuple(padding)


class ConvEpilogue(nn.Module):
    """ReLU(convolution + bias [+ residual]) in one cuDNN kernel; in plain operations on a CPU."""

    def __init__(self, conv: nn.Conv2d, residual_bias: torch.Tensor | None = None):
        super().__init__()
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        bias = bias if residual_bias is None else bias + residual_bias
        self.weight, self.bias = conv.weight, nn.Parameter(bias.detach().clone(), False)
        self.where = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`residual` has the output's shape."""
        if x.is_cuda and residual is None:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, *self.where)
        if x.is_cuda:
            return torch.cudnn_convolution_add_relu(
                x, self.weight, residual, 1.0, self.bias, *self.where
            )
        y = F.conv2d(x, self.weight, self.bias, *self.where)
        return torch.relu(y if residual is None else y + residual)


def fuse_epilogues(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold batch-norms, then each bias, residual addition and ReLU into the convolution before it.

    cuDNN's fused operations (ConvBiasAct) save a kernel's launch and a round trip through memory
    for each; PyTorch offers them as `cudnn_convolution_relu` and `cudnn_convolution_add_relu`.
    """
    traced = fold_batch_norm(network, example)
    modules = dict(traced.named_modules())
    for relu in list(traced.graph.nodes):
        if not _is(relu, RELUS, nn.ReLU, modules):
            continue
        source = relu.args[0]
        if conv := _conv(source, modules):
            _fuse(traced, modules, relu, source, ConvEpilogue(conv))
        elif _is(source, ADDITIONS, (), modules) and len(source.users) == 1:
            _fuse_residual(traced, relu, source, modules)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


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
    idle runs both at once. A shortcut's convolution reads what others read too, and is only used
    together with something else: added to it.
    """
    traced = network if isinstance(network, fx.GraphModule) else fold_batch_norm(network, example)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if _conv(node, modules) is None:
            continue
        others, (user,) = [n for n in node.args[0].users if n is not node], node.users
        if not others or any(_in_place(other, modules) for other in others):
            continue  # nothing beside it, or something that would write what it reads
        if sum(isinstance(term, fx.Node) for term in user.args) > 1:
            _put_aside(traced, modules, node, user)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _put_aside(traced: fx.GraphModule, modules: dict, node: fx.Node, user: fx.Node) -> None:
    name, source = node.target.replace(".", "_"), node.args[0]
    aside = Aside(modules[node.target])
    for suffix, module in (("aside", aside), ("joined", Joined(aside))):
        traced.add_submodule(f"{name}_{suffix}", module)
        modules[f"{name}_{suffix}"] = module
    with traced.graph.inserting_after(source):
        begun = traced.graph.call_module(f"{name}_aside", (source,))
    with traced.graph.inserting_before(user):
        joined = traced.graph.call_module(f"{name}_joined", (begun, source))
    user.replace_input_with(node, joined)
    traced.graph.erase_node(node)


def _fuse_residual(traced: fx.GraphModule, relu, addition, modules: dict) -> None:
    """The last convolution before the addition takes it over, and the bias of the other one."""
    terms = [term for term in addition.args if isinstance(term, fx.Node)]
    convs = [term for term in terms if _conv(term, modules)]
    if len(terms) != 2 or not convs or addition.kwargs:
        return
    main = convs[0]
    residual = terms[1 - terms.index(main)]
    other = _conv(residual, modules)
    bias = None
    if other is not None and other.bias is not None:
        bias, other.bias = other.bias, None  # one addition less: it is the same for all pixels
    _fuse(traced, modules, relu, main, ConvEpilogue(modules[main.target], bias), residual)


def _fuse(traced: fx.GraphModule, modules: dict, relu, conv, fused: nn.Module, *more) -> None:
    name = conv.target.replace(".", "_") + "_epilogue"
    traced.add_submodule(name, fused)
    modules[name] = fused
    with traced.graph.inserting_before(relu):
        relu.replace_all_uses_with(traced.graph.call_module(name, (conv.args[0], *more)))
    traced.graph.erase_node(relu)


def _conv(node, modules: dict) -> nn.Conv2d | None:
    """The convolution that made this value, if nothing else uses the value or the layer."""
    if not _is(node, (), nn.Conv2d, modules) or len(node.users) != 1:
        return None
    conv, calls = modules[node.target], node.graph.find_nodes(op="call_module", target=node.target)
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return conv if plain and len(calls) == 1 else None


def _is(node, functions: tuple, kinds, modules: dict) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        return isinstance(modules[node.target], kinds)
    return node.op in ("call_function", "call_method") and node.target in functions


def _in_place(node: fx.Node, modules: dict) -> bool:
    """Does this operation write into what it is given?"""
    if node.op == "call_module":
        return getattr(modules[node.target], "inplace", False)
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return name.endswith("_") or node.kwargs.get("inplace", False)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
