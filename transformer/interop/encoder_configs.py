"""The part of `config.json` that all encoders share."""

_WRITING = (
    "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample "
    "early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty "
    "forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix "
    "remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens "
    "task_specific_params temperature top_k top_p typical_p"
)
# Keys that do not affect the results of an encoder, and why.
IRRELEVANT = {
    **dict.fromkeys(_WRITING.split(), "of models that write"),
    **dict.fromkeys(
        ("attention_probs_dropout_prob", "classifier_dropout"),
        "of training, where hidden_dropout_prob is the rate of all",
    ),
    **dict.fromkeys(
        ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
        "the tokenizer says it",
    ),
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation", "use_bfloat16", "torchscript"), "speed"
    ),
    **dict.fromkeys(("finetuning_task", "model_name", "output_past"), "where it came from"),
    **dict.fromkeys(
        (
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        ),
        "of the code before",
    ),
}
