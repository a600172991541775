"""The classic networks.

Names and shapes of their states are torchvision's where torchvision has them, so that its
checkpoints, saved as safetensors, load as they are. Under `nn.init.skip()` a network is made
without drawing its initial weights.
"""

from convolith.zoo._classic import (
    CLayer,
    LeNet,
    Neocognitron,
    SLayer,
    example_color,
    example_digit,
    example_photo,
    fully_connected,
    lenet,
    neocognitron,
)
from convolith.zoo._dense_outputs import UNet, WaveNet, unet, wavenet
from convolith.zoo._googlenet import GoogLeNet, googlenet
from convolith.zoo._resnet import (
    DenseNet,
    MobileNetV2,
    ResNet,
    densenet121,
    mobilenet_v2,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
)
from convolith.zoo._vgg import (
    alexnet,
    alexnet_two_groups,
    all_convolutional,
    vgg11,
    vgg13,
    vgg16,
    vgg19,
    zfnet,
)
from convolith.zoo._yolo import (
    TinyYoloV2,
    box_overlap,
    decode_boxes,
    non_maximum_suppression,
    tiny_yolo_v2,
)

__all__ = [
    "CLayer",
    "DenseNet",
    "GoogLeNet",
    "LeNet",
    "MobileNetV2",
    "Neocognitron",
    "ResNet",
    "SLayer",
    "TinyYoloV2",
    "UNet",
    "WaveNet",
    "alexnet",
    "alexnet_two_groups",
    "all_convolutional",
    "box_overlap",
    "decode_boxes",
    "densenet121",
    "example_color",
    "example_digit",
    "example_photo",
    "fully_connected",
    "googlenet",
    "lenet",
    "mobilenet_v2",
    "neocognitron",
    "non_maximum_suppression",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "tiny_yolo_v2",
    "unet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wavenet",
    "zfnet",
]
