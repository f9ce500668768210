"""The smallest configuration of a family: every size that is known by its name is made small, also in nested parts.

What a family derives from its sizes follows by itself; the few that need more say it in `OWN`.
"""

from __future__ import annotations

import re
from typing import Any

VOCABULARY = 320
_BY_SIZE: dict[int, str] = {
    VOCABULARY: "vocab_size unpadded_vocab_size vocab_size_per_layer_input",
    32: "hidden_size d_model n_embd word_embed_proj_dim embedding_size hidden_dim lru_width dim_model model_dim "
    "attention_hidden_size emb_dim embed_dim dim moe_latent_size",
    48: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner inner_dim moe_intermediate_size d_inner dff "
    "shared_expert_intermediate_size shared_experts_intermediate_size dim_ff ffn_hidden_size d_ff "
    "shared_intermediate_size expert_ffn_hidden_size "
    "moe_shared_expert_intermediate_size intermediate_size_mlp feed_forward_size block_ff_dim",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_encoder_layers depth "
    "num_blocks num_decoder_layers num_key_value_heads n_kv_heads linear_num_key_heads swa_num_key_value_heads "
    "num_kv_heads "
    "num_experts_per_tok moe_k moe_top_k top_k_experts num_experts_per_token moe_topk",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads linear_num_value_heads swa_num_attention_heads "
    "qk_rope_head_dim rotary_dim index_n_heads num_experts n_routed_experts num_local_experts moe_num_experts",
    8: "head_dim linear_key_head_dim linear_value_head_dim v_head_dim qk_nope_head_dim attention_head_dim kv_channels "
    "dim_head query_pre_attn_scalar swa_head_dim swa_v_head_dim global_head_dim mamba_d_head mamba_head_dim d_kv "
    "index_head_dim linear_head_dim mamba_n_heads mamba_num_heads n_mamba_heads state_size mamba_d_state "
    "ssm_state_size num_mamba_heads hidden_size_per_layer_input laurel_rank",
    12: "qk_head_dim",
    16: "kv_lora_rank q_lora_rank o_lora_rank sliding_window window_size attention_window_size attention_chunk_size "
    "index_topk chunk_size mamba_chunk_size mamba_dt_rank",
    1: "n_group topk_group n_shared_experts moe_num_shared_experts num_shared_experts n_groups mamba_n_groups",
    256: "max_position_embeddings n_positions n_ctx max_sequence_length seq_length max_seq_len max_target_positions "
    "max_source_positions",
    0: "bos_token_id pad_token_id decoder_start_token_id unk_token_id",
    3: "eos_token_id sep_token_id mask_token_id cls_token_id",
}
SMALL = {name: size for size, names in _BY_SIZE.items() for name in names.split()}
_HASHED = {"encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_size": [3, 4]}
_SHAPES = {"shape_vocab_size": 20, "shape_embed_dim": 8, "pronunciation_vocab_size": 20, "pronunciation_embed_dim": 8}
_MIXED = {"layer_types": ["linear_attention", "full_attention"]}
"""Of their first two layers alone, these would have no attention."""
_TWICE = {"attention_hidden_size": 64, "attention_head_dim": 16}
"""Their attention reads the embedding beside the states."""
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": _MIXED,
    "bamba": {"attn_layer_indices": [1]},
    "blt": _HASHED,
    "cohere_compass_text": {"layer_types": ["full_attention"] * 2},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0},
    "granitemoehybrid": _MIXED,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**_MIXED, "mlp_layer_types": ["dense", "sparse"], "linear_num_heads": 4},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "qwen3_5_moe_text": _MIXED,
    "qwen3_5_text": _MIXED,
    "qwen3_next": _MIXED,
    "qwen4_exp_text": {"layer_types": ["linear_attention", "indexed_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"], "num_buckets": 4},
    "roc_bert": _SHAPES,
    "xlstm": {"chunk_size": 8},
    "zamba": {**_TWICE, "num_hidden_layers": 6, "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_dt_rank": 2},
    "zamba2": {
        **_TWICE,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "mamba_headdim": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family needs beside that."""


def small_config(family: str) -> Any:
    """The configuration of a family, small."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return _small(CONFIG_MAPPING[family], OWN.get(family, {}))


def _small(kind: Any, own: dict[str, Any]) -> Any:
    default, nested = kind(), dict(getattr(kind, "sub_configs", None) or {})
    there, aliases = default.to_dict(), getattr(kind, "attribute_map", None) or {}
    given: dict[str, Any] = {name: size for name, size in SMALL.items() if name in there and name not in aliases}
    # Dropped at random, no two runs would agree.
    given |= {name: 0.0 for name, value in there.items() if re.search("dropout|pdrop|layerdrop", name) and value}
    given |= {"is_decoder": True} if there.get("is_decoder") is False and not there.get("is_encoder_decoder") else {}
    given |= {name: 0.0 for name in there if "jitter" in name and there[name]}
    given |= {"head_dim": given["qk_rope_head_dim"]} if {"head_dim", "qk_rope_head_dim"} <= given.keys() else {}
    given |= {"num_key_value_heads": 4} if {"kv_lora_rank", "num_key_value_heads"} <= there.keys() else {}
    for name, part in nested.items():
        inner = type(getattr(default, name)) if part.__name__ == "AutoConfig" else part
        if inner is not type(None):
            given[name] = _small(inner, OWN.get(inner.model_type, {})).to_dict()
    return kind(**{**given, **own})
