"""Backbone for Hugging Face checkpoints of all families: tokenizer, prompt encoding, decoding and weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL.Image import Image
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import is_liger_kernel_available

from grit_lightning.errors import CheckpointError, ConfigError, DataError
from grit_lightning.grounding.options import with_options
from grit_lightning.model.adapters import LoRA
from grit_lightning.model.attention import LANGUAGE, set_vision_attention
from grit_lightning.model.backbones.chat_template import expand_images, read_chat_template, render_turn, turn_content
from grit_lightning.model.backbones.checkpoint_errors import checkpoint_errors
from grit_lightning.model.backbones.family import Family, ImageLimits
from grit_lightning.model.backbones.freezing import freeze
from grit_lightning.model.backbones.internvl import InternVL
from grit_lightning.model.backbones.prompts import prompt_version, require_question
from grit_lightning.model.backbones.qwen2_5_vl import Qwen25VL
from grit_lightning.model.backbones.qwen3_vl import Qwen3VL
from grit_lightning.model.backbones.random_weights import random_checkpoint
from grit_lightning.model.backbones.recomputation import recompute_activations
from grit_lightning.model.backbones.special_tokens import TextEncoder, read_special_tokens
from grit_lightning.model.conversion.cached import is_original, native_folder
from grit_lightning.model.conversion.safetensors_files import require_whole
from grit_lightning.model.finite import require_finite
from grit_lightning.model.hub import checkpoint_folder, with_weights
from grit_lightning.model.varlen import Choice, is_available
from grit_lightning.system.slow import announced
from grit_lightning.types import Completion, FinishReason, Prompt, Sample

FAMILIES: Mapping[str, type[Family]] = {"qwen2_5_vl": Qwen25VL, "qwen3_vl": Qwen3VL, "internvl": InternVL}
"""Families, keyed by the ``model_type`` of a checkpoint's config."""


class PretrainedBackbone:
    """A checkpoint with its tokenizer, prompt and weights; its ``model_type`` selects the family.

    Args:
        checkpoint: a folder in Hugging Face layout, or a hub id. InternVL's original layout is converted first.
        prompt: text of the user's turn after the image; ``{question}`` is replaced by the question.
        prefill: beginning of the assistant's turn, such as ``<think>``. It is given to the model, not sampled, so the
            text of a completion includes it and the token ids do not.
        min_pixels, max_pixels: limits on the area of the resized image in pixels, for families that resize (Qwen).
        max_tiles: largest number of tiles per image, for families that cut images into tiles (InternVL).
        dtype: dtype of the weights: ``float32`` for full fine-tuning, because an update of 1e-6 vanishes in bf16;
            otherwise ``bfloat16``.
        attn_implementation: kernel that computes bf16 attention on CUDA (:mod:`grit_lightning.model.varlen`): ``auto``,
            torch's own, or ``flash``, that of the package flash-attn.
        gradient_checkpointing: whether to recompute activations in the backward pass.
        random_weights_seed: seed of random weights for the checkpoint's config; ``None`` to read the checkpoint's own.
        peft: adapters to train; ``None`` to train the model's own parameters.
        freeze: what to exclude from training: ``vision``, ``projector``, ``language``, or parameter name prefixes.
        liger: whether to compute norms, rotary embeddings and gated MLPs with Liger's kernels (arXiv 2410.10989);
            ``auto`` does so on a GPU where they are installed. Liger's fused head is not used, because the package's
            own head avoids full logits as well.

    Raises:
        CheckpointError: the folder lacks files, or holds another architecture, or the hub does not deliver them.
        ConfigError: the prompt lacks ``{question}``, or liger-kernel is not installed.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        prompt: str,
        prefill: str,
        min_pixels: int,
        max_pixels: int,
        max_tiles: int,
        dtype: Literal["float32", "bfloat16"],
        attn_implementation: Choice,
        gradient_checkpointing: bool,
        random_weights_seed: int | None,
        peft: LoRA | None,
        freeze: Sequence[str],
        liger: bool | Literal["auto"] = False,
    ) -> None:
        liger = torch.cuda.is_available() and is_liger_kernel_available() if liger == "auto" else liger
        if liger and not is_liger_kernel_available():
            raise ConfigError("model.liger needs liger-kernel: pip install 'grit-lightning[liger]'")
        if not is_available(attn_implementation):
            raise ConfigError("model.attn_implementation=flash needs flash-attn: pip install 'grit-lightning[flash]'")
        require_question(prompt)
        self.checkpoint = checkpoint = str(Path(checkpoint).expanduser()) if checkpoint[:1] == "~" else checkpoint
        self.prompt, self.prefill = prompt, prefill
        self.prompt_version = prompt_version(prompt, prefill)
        self.dtype = getattr(torch, dtype)
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing, self.liger = gradient_checkpointing, liger
        self.random_weights_seed = random_weights_seed
        self.peft = peft
        self.freeze = tuple(freeze)
        # The folder that transformers reads: the checkpoint, its files in the hub's cache, or its converted copy.
        source = checkpoint_folder(checkpoint)
        self._converted = is_original(source)
        self._source = source = native_folder(checkpoint) if self._converted else source
        with checkpoint_errors(checkpoint):
            self.config = AutoConfig.from_pretrained(source)
            if (family := FAMILIES.get(self.config.model_type)) is None:
                raise CheckpointError(
                    f"{checkpoint}: model type is {self.config.model_type!r}, expected one of {', '.join(FAMILIES)}"
                )
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            self.family = family(source, self.config, ImageLimits(min_pixels, max_pixels, max_tiles))
        read_chat_template(self.tokenizer, source, self.family.image_token, checkpoint)
        self.image_processor = self.family.image_processor
        tokens = read_special_tokens(self.tokenizer, self.config, self.family, checkpoint)
        self.image_token_id, self.end_of_turn_id, self.pad_token_id = tokens.image, tokens.end_of_turn, tokens.pad
        self.eos_token_ids, self.banned_token_ids = tokens.eos, tokens.banned
        self.control_tokens, self._around_image = tokens.control, tokens.around_image
        bare = render_turn(self.tokenizer, ["?"], checkpoint)
        self.plain_tokens = tuple(token for token in self.family.untrained_tokens if token not in bare)
        self._ids = TextEncoder(self.tokenizer, self.plain_tokens)

    def encode(self, sample: Sample, images: Sequence[Image]) -> Prompt:
        """Tokenize and preprocess a sample: images, question, the assistant's header and the prefill.

        Raises:
            DataError: the question contains a control token of the model, such as its image placeholder.
            CheckpointError: the chat template does not render exactly one placeholder per image.
        """
        question = with_options(sample.question, sample.options)
        if control := next((token for token in self.control_tokens if token in question), None):
            field = "question" if control in sample.question else "options"
            raise DataError(f"field '{field}' contains the model's control token {control}", sample.source)
        inputs = [self.family.read(image) for image in images]
        text = self.render(question, len(images))
        ids, counts = self._ids(text), [one.num_tokens for one in inputs]
        ids_S = torch.tensor(expand_images(ids, self.image_token_id, counts, self._around_image, self.checkpoint))
        return Prompt(
            sample=sample,
            text=text,
            input_ids_S=ids_S,
            position_ids_A_S=self.family.positions(ids_S == self.image_token_id, inputs),
            vision={name: torch.cat([one.vision[name] for one in inputs]) for name in inputs[0].vision},
            box_spaces=tuple(one.box_space for one in inputs),
        )

    def render(self, question: str, num_images: int = 1) -> str:
        """Return the prompt text: chat template with images and question, the assistant's header and the prefill.

        Args:
            question: the question, whose marks ``<image>`` place the images; without marks, they stand before it.
            num_images: number of images.
        """
        content = turn_content(self.prompt.replace("{question}", question), num_images)
        return render_turn(self.tokenizer, content, self.checkpoint) + self.prefill

    def completion(self, token_ids: Sequence[int], finish: FinishReason, prompt: Prompt) -> Completion:
        """Build a completion from sampled tokens; its text is the prefill and the decoded tokens.

        End-of-sequence and padding tokens are left out of the text. Other special tokens stay, because InternVL points
        with ``<ref>`` and ``<box>``, which its tokenizer treats as special.
        """
        written = [token for token in token_ids if token not in (self.pad_token_id, *self.eos_token_ids)]
        text = self.tokenizer.decode(written, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Completion(tuple(token_ids), self.prefill + text, finish, prompt.box_spaces)

    def target(self, text: str, prompt: Prompt) -> Completion:
        """Build the completion to learn from a text: its tokens after the prefill, and the end-of-turn token.

        Raises:
            DataError: the text does not begin with the prefill.
        """
        if not text.startswith(self.prefill):
            raise DataError(f"the completion does not begin with prompt.prefill, {self.prefill}", prompt.sample.source)
        ids = self._ids(text.removeprefix(self.prefill))
        return Completion((*ids, self.end_of_turn_id), text, "eos", prompt.box_spaces)

    def unexpanded(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt's text, in which one placeholder stands for each image."""
        return list(self._ids(prompt.text))

    def count_image_tokens(self, prompt: Prompt) -> int:
        """Return the number of image tokens in a prompt."""
        return int((prompt.input_ids_S == self.image_token_id).sum())

    def weights_folder(self) -> str:
        """Return where to read weights: the checkpoint, or a cached folder of random ones, made on first use.

        Raises:
            CheckpointError: a weight file is missing or truncated, or the cache cannot be written.
        """
        if self.random_weights_seed is None:
            folder = self._source if self._converted else with_weights(self.checkpoint, self._source)
            require_whole(folder)  # early, and with the file's name, which loading would not give
            return str(folder)
        return str(random_checkpoint(self.config, self.random_weights_seed, self.tokenizer, self.image_processor))

    def load_model(self) -> PreTrainedModel:
        """Load the model with its weights and adapters, in eval mode.

        Raises:
            CheckpointError: weights are missing, truncated, of another shape or not finite.
        """
        folder = self.weights_folder()
        with checkpoint_errors(self.checkpoint), announced(f"loading the weights of {self.checkpoint}"):
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=self.dtype,
                quantization_config=self.peft.quantization(self.family.parts, self.dtype) if self.peft else None,
                attn_implementation=LANGUAGE[self.attn_implementation],
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        # transformers would silently replace such weights by random values.
        if unread := sorted(map(str, {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})):
            raise CheckpointError(f"{folder}: {len(unread)} weights are missing or of another shape, e.g. {unread[0]}")
        require_finite(model.named_parameters(), self.checkpoint)
        # generate() takes values that its config leaves unset from the checkpoint's generation config. The released
        # models set a repetition penalty there, with which rollouts would not follow the policy's distribution.
        model.generation_config = GenerationConfig()
        if self.liger:
            apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
        set_vision_attention(model, self.attn_implementation)
        self._freeze_and_adapt(model)
        if self.gradient_checkpointing:
            recompute_activations(model)
        return model

    def outline(self) -> PreTrainedModel:
        """Build the model without weights, on the meta device: names, shapes, dtypes and trainable flags."""
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(copy.deepcopy(self.config), dtype=self.dtype)
        self._freeze_and_adapt(model)
        return model

    def weight_bits(self, model: PreTrainedModel) -> dict[str, float]:
        """Return the bits per weight of each quantized parameter, by name; empty without quantization."""
        return self.peft.bits(model, self.family.parts) if self.peft is not None else {}

    def _freeze_and_adapt(self, model: PreTrainedModel) -> None:
        freeze(model, self.freeze, self.family.parts, self.checkpoint)
        if self.peft is not None:
            self.peft.fit(model, self.family.parts)
