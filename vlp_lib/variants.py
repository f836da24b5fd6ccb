"""The variants (rows of Table II): what stands in the vision branch, and what teaches it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vlp_lib import catalogue
from vlp_lib.errors import UserError, unknown


@dataclass(frozen=True)
class Variant:
    """What stands in the vision branch and what teaches it; everything else is the same for all."""

    name: str  # as it is written in files and figures
    vision: str  # the vision stream: "vit", "resnet", "region" or "timm:NAME"
    losses: tuple[tuple[str, float], ...] = ()  # (name, weight) of each; none for the naive models and the region model


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        Variant("region", "region"),
        Variant("naive_vit", "vit"),
        Variant("naive_resnet", "resnet"),
        Variant("ssul", "vit", (("ssul", 1.0),)),
        Variant("segl", "vit", (("segl", 1.0),)),
        Variant("segl_resnet", "resnet", (("segl", 1.0),)),
        Variant("spl_small", "vit", (("spl_small", 1.0),)),
        Variant("spl_large", "vit", (("spl_large", 1.0),)),
    )
}
"""The rows of Table II and the region-feature model."""

_TIMM = re.compile(r"timm:[\w.]+")
_MIX = re.compile(r"(?:(?P<weight>\d+(?:\.\d*)?|\.\d+)\*)?(?P<loss>[a-z][a-z0-9_]*)")


def parse_variant(name: str, vision: str = "vit") -> Variant:
    """A variant by name: one of `VARIANTS`, "naive", a visual loss such as "segl@resnet", or a mix "segl+0.5*ssul".

    Mixes are the paper's future work (section V). Where the name tells no backbone it is `vision`, a profile's
    `model.vision`; "@vit", "@resnet" and "@timm:NAME" tell one.

    Raises UserError for an unknown name.
    """
    known = catalogue.losses()
    if name in VARIANTS and name not in known:
        return VARIANTS[name]
    mix, at, backbone = name.partition("@")
    if mix not in ("naive", *known) and not set("*+@") & set(name):
        raise unknown("variant", name, dict.fromkeys([*VARIANTS, "naive", *known]))
    stream = backbone if at else vision
    if stream not in ("vit", "resnet") and not _TIMM.fullmatch(stream):
        raise unknown("backbone", stream, ("vit", "resnet", "timm:NAME"))
    losses: dict[str, float] = {}
    for term in () if mix == "naive" else mix.split("+"):
        match = _MIX.fullmatch(term.strip())
        if not match or match["loss"] not in known:
            raise unknown(f"visual loss in variant {name!r}:", term.strip(), known)
        if match["loss"] in losses:
            raise UserError(f"variant {name!r} names the loss {match['loss']!r} twice: give each one weight")
        losses[match["loss"]] = float(match["weight"] or 1.0)
    if sum(known[loss].replaces_tokens for loss in losses) > 1:
        raise UserError(
            f"variant {name!r} has two losses that make the cross-modality encoder's input, and it reads one: keep one"
        )
    return Variant(name, stream, tuple(losses.items()))


def naive_of(vision: str) -> str:
    """The naive model of a profile with this vision stream."""
    return f"naive_{vision}" if f"naive_{vision}" in VARIANTS else "naive"


def default_variants(vision: str) -> list[str]:
    """The paper's variants, where the vision stream of a profile is one of the paper's; else those on that stream."""
    losses = [name for name in VARIANTS if name in catalogue.losses()]
    return list(VARIANTS) if vision in ("vit", "resnet") else ["region", "naive", *losses]
