"""A model and a batch of any size with made-up contents, to measure what a training will need before it starts.

Neither memory nor time nor the number of operations depends on the values of weights and pixels, so nothing is
downloaded, decoded or initialised.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch
from vlp_lib.config import ModelConfig, Profile, Variant
from vlp_lib.models.model import PretrainingModel, VLPModel, needs_of
from vlp_lib.models.vocabularies import Vocabularies


def probe_model(config: ModelConfig, variant: Variant, sizes: Vocabularies, device: torch.device) -> PretrainingModel:
    """The variant's model in training mode, all weights 0 and all statistics 1."""
    with torch.device("meta"):
        model = PretrainingModel(VLPModel(config, variant, sizes, pretrained=False))
    model = model.to_empty(device=device)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        for buffer in model.buffers():
            buffer.fill_(1)
    return model.train()


def probe_batch(profile: Profile, variant: Variant, sizes: Vocabularies, images: int, device: torch.device) -> Batch:
    """A batch of so many images with their sentences, each as long as the profile allows, and the variant's targets."""
    model, data = profile.model, profile.data
    generator = torch.Generator().manual_seed(0)
    texts = images * (2 if data.pairing == "both" else 1)
    shape = (texts, model.max_text_length)
    ids = torch.randint(1, sizes.words, shape, generator=generator)
    hidden = torch.rand(shape, generator=generator) < data.mlm_probability
    hidden[:, 1] = True
    matched = (torch.arange(texts) < images).long()
    if not data.mlm_on_mismatched:
        hidden &= matched.bool()[:, None]
    needs = needs_of(model, variant, sizes)
    detections = model.region.max_regions if variant.vision == "region" else needs.detections
    corners = torch.rand((images, detections, 2, 2), generator=generator).sort(dim=2).values.flatten(2)
    batch = Batch(
        images=torch.rand((images, 3, model.image_size, model.image_size), generator=generator),
        input_ids=ids,
        clean_ids=ids,
        attention_mask=torch.ones(shape, dtype=torch.bool),
        mlm_labels=torch.where(hidden, ids, NO_MATCHED_TOKEN),
        matched=matched,
        image_of_text=torch.arange(texts) % images if texts > images else None,
        seeds=torch.randint(2**62, (images,), generator=generator),
        image_ids=torch.arange(images),
    )
    if needs.label_maps:
        size = (images, model.image_size, model.image_size)
        batch = replace(batch, label_maps=torch.randint(sizes.segmentation, size, generator=generator))
    if detections:
        features = model.region.feature_size if variant.vision == "region" else 0
        batch = replace(
            batch,
            labels=torch.randint(sizes.detector, (images, detections), generator=generator),
            attributes=torch.randint(sizes.attributes, (images, detections), generator=generator),
            scores=torch.rand((images, detections), generator=generator),
            boxes=corners,
            features=torch.rand((images, detections, features), generator=generator) if features else None,
        )
    return batch.to(device)
