"""Places in a transformer block that can be observed or edited, by the field's names.

Every site is a tensor with leading axes (batch, position); the last axis is given here.
"""

SITES = {
    "block_input": "residual stream entering the block, d_model",
    "attention_output": "what the attention adds to the residual stream, d_model",
    "attention_pattern": "softmax weights, axes (batch, head, query, key)",
    "ffn_input": "normalised input of the feed-forward block, d_model",
    "gate": "pre-activation of the gate (gated blocks) or of the neuron (plain blocks), d_mlp",
    "neurons": "input of the down-projection: act(gate) * up, or act(in), d_mlp",
    "ffn_output": "what the feed-forward block adds to the residual stream, d_model",
    "block_output": "residual stream leaving the block, d_model",
    "router_input": "what the router is called with, d_model",
    "router_logits": "scores of the router before any bias or grouping, n_experts",
    "router_probabilities": "the router's distribution over all experts, sums to 1 (see RoutedModel.score), n_experts",
    "expert_index": "experts used for each token, -1 where the token was dropped or skips the experts, k",
    "expert_weight": "weights with which their outputs were summed, k",
    "expert_output": "unweighted outputs of the experts used, axes (batch, position, k, d_model)",
    "shared_output": "what the experts that every token uses add, their gate applied, d_model",
}
"""Site -> what it holds and the width of its last axis."""

DENSE_HOOKS = {
    "block_input": "hook_in",
    "attention_output": "attn.hook_out",
    "attention_pattern": "attn.hook_pattern",
    "ffn_input": "mlp.hook_in",
    "gate": "mlp.gate.hook_out",
    "neurons": "mlp.out.hook_in",
    "ffn_output": "mlp.hook_out",
    "block_output": "hook_out",
}
"""Site -> hook of a TransformerBridge block."""

ROUTED_SITES = (
    "router_input",
    "router_logits",
    "router_probabilities",
    "expert_index",
    "expert_weight",
    "expert_output",
    "shared_output",
)
"""Sites that only a mixture-of-experts block has."""


def check_sites(sites: tuple[str, ...]) -> None:
    """ValueError if a name is not a site."""
    for site in sites:
        if site not in SITES:
            raise ValueError(f"'{site}' is not a site; choose among {', '.join(SITES)}")
