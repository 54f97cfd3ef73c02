"""Cases: activation functions."""

from __future__ import annotations

from minillm import functional as F

from .case import Case, case, distinct, given, normal

WIDE = given([-30.0, -5.0, -0.3, 0.4, 6.0, 30.0])

CASES: list[Case] = [
    case("relu", F.relu, distinct(2, 3), torch=lambda torch, x: torch.relu(x)),
    case("relu", F.relu, given(0.7), label="0-d", torch=lambda torch, x: torch.relu(x)),
    case("relu_squared", F.relu_squared, distinct(2, 3), torch=lambda torch, x: torch.relu(x) ** 2),
    case("leaky_relu", F.leaky_relu, distinct(2, 3), torch=lambda torch, x: torch.nn.functional.leaky_relu(x)),
    case("leaky_relu", lambda x: F.leaky_relu(x, 0.2), distinct(5), label="negative_slope=0.2",
         torch=lambda torch, x: torch.nn.functional.leaky_relu(x, 0.2)),
    case("elu", F.elu, distinct(2, 4), torch=lambda torch, x: torch.nn.functional.elu(x)),
    case("elu", lambda x: F.elu(x, alpha=0.5), distinct(5), label="alpha=0.5",
         torch=lambda torch, x: torch.nn.functional.elu(x, alpha=0.5)),
    case("gelu", F.gelu, normal(2, 3, scale=2.0), torch=lambda torch, x: torch.nn.functional.gelu(x)),
    case("gelu", lambda x: F.gelu(x, approximate="tanh"), normal(2, 3, scale=2.0), label="tanh",
         torch=lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh")),
    case("silu", F.silu, normal(2, 3, scale=3.0), torch=lambda torch, x: torch.nn.functional.silu(x)),
    case("swiglu", F.swiglu, normal(2, 3, scale=3.0), normal(2, 3),
         torch=lambda torch, x, y: torch.nn.functional.silu(x) * y),
    case("mish", F.mish, normal(2, 3, scale=3.0), torch=lambda torch, x: torch.nn.functional.mish(x)),
    case("softplus", F.softplus, WIDE, torch=lambda torch, x: torch.nn.functional.softplus(x)),
    case("softplus", lambda x: F.softplus(x, beta=2.0, threshold=5.0), normal(6, scale=3.0),
         label="beta=2, threshold=5", torch=lambda torch, x: torch.nn.functional.softplus(x, beta=2.0, threshold=5.0)),
    case("logsigmoid", F.logsigmoid, normal(2, 3), torch=lambda torch, x: torch.nn.functional.logsigmoid(x)),
    case("logsigmoid", F.logsigmoid, WIDE, label="wide", torch=lambda torch, x: torch.nn.functional.logsigmoid(x)),
]  # fmt: skip
