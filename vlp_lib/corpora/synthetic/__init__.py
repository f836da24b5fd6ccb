"""The embedded corpus: a procedural miniature of COCO, VQAv2, NLVR2 and VCR, drawn from one seed."""

from vlp_lib.corpora.synthetic.spec import CorpusSpec
from vlp_lib.corpora.synthetic.write import corpus_scene, fingerprint, image_id, synthesize

__all__ = ["CorpusSpec", "corpus_scene", "fingerprint", "image_id", "synthesize"]
