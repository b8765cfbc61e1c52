"""Margin heads: embeddings and labels in, logits out."""

from mstkd_training.heads.elastic_arcface import ElasticArcFace

__all__ = ["ElasticArcFace"]
