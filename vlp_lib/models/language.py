"""The language stream: transformers' BERT encoder (section IV-A1)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, BertModel

from vlp_lib.config import ModelConfig
from vlp_lib.models.weights import LoadReport, bert_state_dict, load_matching


class LanguageStream(nn.Module):
    """BERT's embeddings and first `language_layers` layers."""

    load_report: LoadReport | None = None

    def __init__(self, config: ModelConfig, vocabulary: int, pretrained: bool = True) -> None:
        super().__init__()
        self.bert = BertModel(
            BertConfig(
                vocab_size=vocabulary,
                hidden_size=config.hidden,
                num_hidden_layers=config.language_layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.hidden,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                max_position_embeddings=max(512, config.max_text_length),
            ),
            add_pooling_layer=False,
        )
        if pretrained and config.language_pretrained:
            state = bert_state_dict(config.language_pretrained)
            self.load_report = load_matching(self.bert, state, config.language_pretrained)

    @property
    def word_embedding(self) -> torch.Tensor:
        """[V, C], shared with the MLM head."""
        return self.bert.embeddings.word_embeddings.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L] and mask [B, L] to features [B, L, C]."""
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
