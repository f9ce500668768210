"""Everything that knows transformers and peft: loading, backbone and head, teachers, saving."""

from afterword.models.adapters import adapter_folder, base_of_adapter, is_adapter
from afterword.models.backbone import (
    backbone_of,
    causal_lm,
    device_of,
    has_adapter,
    head_of,
    is_checkpointed,
    is_partly_away,
    layer_states,
    layer_states_through,
    only_reading,
    trained_states,
    trained_states_through,
)
from afterword.models.checks import (
    alone_beyond,
    check_head,
    check_weights,
    context_length,
    fixed_positions,
    has_bfloat16,
    packs_cleanly,
    position_limit,
    refuse_foreign_tokenizer,
    refuse_unembedded,
    row_limit,
    vocabulary_of,
)
from afterword.models.fixed_logits import difference, said
from afterword.models.four_bit import FourBit, dequantise, four_bit_of, load_in_4bit, require_bitsandbytes
from afterword.models.gguf_files import gguf_fields, written_as_folder
from afterword.models.going_on import as_given, go_on, goes_on, settings_of_adapter
from afterword.models.heap import free_memory
from afterword.models.interpolation import Between, blend_into, blended, refuse_unlike
from afterword.models.load import load_adapted, load_config, load_model, load_tokenizer, parameter_count
from afterword.models.lookup import model_folder
from afterword.models.lora import ADAPTER_CONFIG, LORA_LEARNING_RATE, LoraSettings, refuse_unsafe_adapters, with_lora
from afterword.models.merge import merged, out_of_4bit, widen
from afterword.models.mixed_products import attention_is_raised, mixed_precision
from afterword.models.packing import checked_layout, default_tokens, packing_for
from afterword.models.precision import (
    bf16_speedup,
    evaluation_dtype,
    layer_shape,
    measured_precision,
    resolved_precision,
    unmeasured_precision,
)
from afterword.models.quantization import BITS, quantisation_error_nats, quantised, refuse_bits, require_torchao
from afterword.models.quiet import quiet_libraries
from afterword.models.save import (
    configuration_sha256,
    content_sha256,
    has_result,
    result_folder,
    save_result,
    saved_dtype,
    weights_fingerprint,
    write_model,
)
from afterword.models.save_precision import SavePrecision, Saving, Trained, base_in_memory, rounds, settle, trained_from
from afterword.models.shapes import scales_of, shape_of
from afterword.models.shared_prompts import (
    ReadPrompts,
    continued_states,
    continues_cleanly,
    read_prompts,
    side_by_side,
    whole_states,
)
from afterword.models.size import ModelSize, size_of
from afterword.models.stored_precision import Precisions, StoredModel, stored_precisions
from afterword.models.teacher_cache import TeacherCache, given_fingerprint, open_cache
from afterword.models.teachers import (
    AdapterOff,
    FrozenCopy,
    HeadOnly,
    LiveTeacher,
    Offloaded,
    Teacher,
    freeze,
    frozen_copy,
    head_only,
    offloaded,
    reads_beginnings_once,
    teacher_for,
    untrained,
)
from afterword.named_models import GGUF, refuse_name
from afterword.storage.atomic import MANIFEST, STAGING_SUFFIX, is_complete, publish, replace_file, staging_folder
