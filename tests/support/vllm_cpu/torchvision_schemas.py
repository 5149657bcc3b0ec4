"""Declare torchvision's compiled operators beside a CPU build of torch, with which PyPI's torchvision does not load.

vLLM imports torchvision and calls none of them. ``make test-vllm`` puts this module into its environment, with a .pth
file that imports it, because vLLM looks at models in a process of its own.
"""

import torch

library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
