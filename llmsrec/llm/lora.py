"""Low-rank updates (LoRA) of a language model by PEFT, inserted into its layers in place."""

import torch
from torch import nn

from llmsrec.core.errors import ConfigError
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.variants import LAYERS, Lora


def add_lora(backbone: Backbone, lora: Lora) -> nn.ParameterDict:
    """The new trained parameters, in float32, by their names in `backbone`, which is changed in place.

    Raises ConfigError if the model has no layers of these names."""
    import peft  # takes seconds to import

    names = {name.rsplit(".", 1)[-1] for name, _ in backbone.model.named_modules()}
    if missing := set(LAYERS[lora.layers]) - names:
        raise ConfigError(
            f"the language model, a {type(backbone.model).__name__}, has no layer named "
            f"{', '.join(sorted(missing))}, which LoRA is to update"
        )
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(LAYERS[lora.layers]),
        ),
        backbone.model,
    )
    trained = nn.ParameterDict()
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.float32)
            trained[name.replace(".", "/")] = parameter  # torch allows no dot in a name
    return trained
