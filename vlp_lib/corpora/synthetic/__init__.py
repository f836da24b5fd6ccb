"""The embedded corpus: a procedural miniature of COCO, VQAv2, NLVR2 and VCR, drawn from one seed."""

from vlp_lib.corpora.synthetic.world import CorpusSpec
from vlp_lib.corpora.synthetic.write import image_id, synthesize

__all__ = ["CorpusSpec", "image_id", "synthesize"]
