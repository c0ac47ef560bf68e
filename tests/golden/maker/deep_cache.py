"""DeepCache (Ma, Fang and Wang, 2023) on diffusers' UNet, as the authors' `DeepCacheSDHelper` has it with `cache_branch_id` 0.

One in `interval` UNet calls is whole and keeps what goes into the last layer on the way up. The calls between run that layer on it with the
first convolution's output, the diffusers modules called by hand. Unlike the helper, which guidance cannot change under way, a call whose
number of rows is another than that of the kept feature is whole, and the interval begins again.
"""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput


class DeepCache:
    def __init__(self, unet, interval):
        self.unet, self.interval, self.whole = unet, interval, unet.forward
        self.deep, self.left = None, 0
        unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(self.keep)
        unet.forward = self.forward

    def keep(self, _resnet, arguments):
        """What the layer reads is the feature and, behind it, the first convolution's output."""
        if self.left == 0:
            self.deep = arguments[0][:, : -self.unet.conv_in.out_channels]

    def forward(self, sample, timestep, encoder_hidden_states, timestep_cond=None, added_cond_kwargs=None, return_dict=True, **_):
        if self.left > 0 and len(self.deep) == len(sample):
            self.left -= 1
            output = self.shallow(sample, timestep, encoder_hidden_states, timestep_cond, added_cond_kwargs)
            return UNet2DConditionOutput(sample=output) if return_dict else (output,)
        self.left = 0
        output = self.whole(
            sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, added_cond_kwargs=added_cond_kwargs, return_dict=return_dict
        )
        self.left = self.interval - 1
        return output

    def shallow(self, sample, timestep, encoder_hidden_states, timestep_cond, added_cond_kwargs):
        unet, top = self.unet, self.unet.up_blocks[-1]
        temb = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep), timestep_cond)
        added = unet.get_aug_embed(emb=temb, encoder_hidden_states=encoder_hidden_states, added_cond_kwargs=added_cond_kwargs)
        temb = temb if added is None else temb + added
        hidden = torch.cat([self.deep, unet.conv_in(sample)], dim=1)
        hidden = top.resnets[-1](hidden, temb)
        if getattr(top, "attentions", None):
            hidden = top.attentions[-1](hidden, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
