"""Networks rewritten for inference: the same function of the image, in fewer or cheaper kernels.

Every rewriting takes (network in FP32 and eval mode, example image batch) and returns a network; it
owns its argument, a copy that `helpers.annex.variants.build` made.
"""

import operator

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from helpers.annex.variants.refusal import VariantFailed

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
RELUS = (F.relu, torch.relu, torch.relu_, "relu", "relu_")
CHANNELS = 4  # cuDNN's Tensor Core kernels read 8 bytes at once


class Adapted(nn.Module):
    """FP32 NCHW image, or tokens, in, FP32 logits out, whatever the network's type and layout."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, layout: torch.memory_format):
        super().__init__()
        self.network, self.dtype, self.layout = network, dtype, layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Cast and layout change are one kernel.
        return self.network(x.to(dtype=self.dtype, memory_format=self.layout)).float()


def fold_batch_norm(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold each batch-norm that follows a convolution or a linear layer into its weights."""
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        raise VariantFailed("nothing_to_change", part="fused")
    return fuse(network, inplace=True)


def crop_to_image(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Cut the weights that only ever meet zero padding at the example's image size.

    Where a 3x3 convolution sees 1x1 pixel, eight of its nine taps multiply zeros: so in the last
    block of torchvision's ResNet-18 on 32x32 images, three quarters of its weights. The result is
    exact for images of this size and wrong for others.
    """
    sizes: dict[nn.Module, set] = {}

    def record(module, inputs, output):
        sizes.setdefault(module, set()).add((inputs[0].shape[2:], output.shape[2:]))

    kinds = (nn.Conv2d, nn.AdaptiveAvgPool2d)
    hooks = [m.register_forward_hook(record) for m in network.modules() if isinstance(m, kinds)]
    network(example)
    for hook in hooks:
        hook.remove()
    for name, module in list(network.named_modules()):
        if len(sizes.get(module, ())) != 1:  # never run, or at several sizes
            continue
        ((seen, made),) = sizes[module]
        if isinstance(module, nn.Conv2d):
            _crop(module, seen, made)
        elif seen == made:
            network.set_submodule(name, nn.Identity())
    return network


def _crop(conv: nn.Conv2d, seen: torch.Size, made: torch.Size) -> None:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return
    kept, padding = [], []
    for axis in range(2):
        stride, pad, step = conv.stride[axis], conv.padding[axis], conv.dilation[axis]
        starts = [output * stride - pad for output in range(made[axis])]
        taps = range(conv.kernel_size[axis])
        used = [t for t in taps if any(0 <= s + t * step < seen[axis] for s in starts)]
        first, last = used[0], used[-1]
        pad -= first * step
        size = (seen[axis] + 2 * pad - step * (last - first) - 1) // stride + 1
        if pad < 0 or size != made[axis]:  # nn.Conv2d pads both sides alike: not expressible
            return
        kept.append(slice(first, last + 1))
        padding.append(pad)
    conv.weight = nn.Parameter(conv.weight[:, :, kept[0], kept[1]].contiguous(), False)
    conv.kernel_size, conv.padding = tuple(conv.weight.shape[2:]), tuple(padding)


class Pool3d(nn.Module):
    """The same max-pooling, by PyTorch's 3D kernel: its 2D one is slow with channels last."""

    def __init__(self, pool: nn.MaxPool2d):
        super().__init__()
        sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        flat = [(depth, *_pair(size)) for depth, size in zip((1, 1, 0, 1), sizes, strict=True)]
        self.pool = nn.MaxPool3d(*flat, ceil_mode=pool.ceil_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x.unsqueeze(2)).squeeze(2)  # an image is a volume of depth 1


def suit_stem(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Suit FP16 with channels last: image channels zero-padded to a multiple of 4, 3D pooling.

    Every convolution of as many channels as the image has is taken for one that reads it.
    """
    suited: dict[nn.Module, nn.Module] = {}  # a module may stand in several places
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and module not in suited:  # the network itself cannot be replaced
            suited[module] = _suited(module, example.shape[1])
        if name and suited[module] is not module:
            network.set_submodule(name, suited[module])
    if all(new is old for old, new in suited.items()):
        raise VariantFailed("nothing_to_change", part="stem")
    return network


def _suited(module: nn.Module, channels: int) -> nn.Module:
    if isinstance(module, nn.MaxPool2d) and not module.return_indices:
        return Pool3d(module)
    missing = -channels % CHANNELS
    reads = isinstance(module, nn.Conv2d) and (module.groups, module.in_channels) == (1, channels)
    if not missing or not reads:
        return module
    # torch calls it 3d: it pads the last three dimensions, here channels, height and width
    padding = (0, 0, 0, 0, 0, missing)
    module.weight = nn.Parameter(F.pad(module.weight, padding), False)
    module.in_channels += missing
    return nn.Sequential(nn.ZeroPad3d(padding), module)


class ConvEpilogue(nn.Module):
    """ReLU(convolution + bias [+ residual]) in one cuDNN kernel; in plain operations on a CPU."""

    def __init__(self, conv: nn.Conv2d, residual_bias: torch.Tensor | None = None):
        super().__init__()
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        bias = bias if residual_bias is None else bias + residual_bias
        self.weight, self.bias = conv.weight, nn.Parameter(bias.detach().clone(), False)
        self.where = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        weight, bias, where = self.weight, self.bias, self.where
        if not x.is_cuda:
            y = F.conv2d(x, weight, bias, *where)
            return torch.relu(y if residual is None else y + residual)
        if residual is None:
            return torch.cudnn_convolution_relu(x, weight, bias, *where)
        return torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, bias, *where)


def fuse_epilogues(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold batch-norms, then each bias, residual addition and ReLU into the convolution before it.

    cuDNN's fused operations (ConvBiasAct) save a kernel's launch and a round trip through memory.
    """
    traced = fuse(network, inplace=True)
    modules = dict(traced.named_modules())
    for relu in list(traced.graph.nodes):
        if not is_call(relu, RELUS, nn.ReLU, modules):
            continue
        source = relu.args[0]
        if conv := lone_conv(source, modules):
            _fuse(traced, modules, relu, source, ConvEpilogue(conv))
        elif is_call(source, ADDITIONS, (), modules) and len(source.users) == 1:
            _fuse_residual(traced, relu, source, modules)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _fuse_residual(traced: fx.GraphModule, relu, addition, modules: dict) -> None:
    """The main path's last convolution takes the addition over, and the other one's bias."""
    terms = [term for term in addition.args if isinstance(term, fx.Node)]
    convs = [term for term in terms if lone_conv(term, modules)]
    if len(terms) != 2 or not convs or addition.kwargs:
        return
    # A shortcut's convolution reads what the main path reads too.
    main = min(convs, key=lambda term: len(term.args[0].users))
    residual = terms[1 - terms.index(main)]
    other, bias = lone_conv(residual, modules), None
    if other is not None and other.bias is not None:
        bias, other.bias = other.bias, None  # one addition less: it is the same for all pixels
    _fuse(traced, modules, relu, main, ConvEpilogue(modules[main.target], bias), residual)


def _fuse(traced: fx.GraphModule, modules: dict, relu, conv, fused: nn.Module, *more) -> None:
    name = add_module(traced, modules, f"{conv.target}_epilogue", fused)
    with traced.graph.inserting_before(relu):
        relu.replace_all_uses_with(traced.graph.call_module(name, (conv.args[0], *more)))
    traced.graph.erase_node(relu)


def add_module(traced: fx.GraphModule, modules: dict, name: str, module: nn.Module) -> str:
    """Add a module under a name like `name` that is still free; returns that name."""
    name = name.replace(".", "_")
    while name in modules or hasattr(traced, name):
        name += "_"
    traced.add_submodule(name, module)
    modules[name] = module
    return name


def lone_conv(node, modules: dict) -> nn.Conv2d | None:
    """The convolution that made this value, if nothing else uses the value or the layer."""
    if not is_call(node, (), nn.Conv2d, modules) or len(node.users) != 1 or not node.args:
        return None
    conv, calls = modules[node.target], node.graph.find_nodes(op="call_module", target=node.target)
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return conv if plain and len(calls) == 1 else None


def is_call(node, functions: tuple, kinds, modules: dict) -> bool:
    """Is this value made by one of these functions or methods, or by a module of these kinds?"""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return isinstance(modules[node.target], kinds)
    return isinstance(node, fx.Node) and node.op.startswith("call_") and node.target in functions
