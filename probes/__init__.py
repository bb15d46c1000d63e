"""Measurements on language models and pure linear algebra on their matrices.

What large ones cost, on paper, from rates measured on one core of an x86-64 server and on one NVIDIA H100 80GB (files
in tests/benchmarks/results):

Routing of OLMoE-1B-7B on 10^9 tokens (16 layers, d_model 2,048, 64 experts of width 1,024, k = 8)
    a token     attention 16 x 4 x 2,048^2 = 2.7e8 parameters, experts 16 x 8 x 3 x 2,048 x 1,024 = 8.1e8, together
                1.08e9, 2 FLOP each, and 1% for attention over windows of 256: 2.2e9 FLOP (no vocabulary projection)
    the rate    SmolLM2-135M, 1.06e8 parameters without embedding, reads 20,000 tokens in 47.6 s with everything
                measured, which is 1.26 times the plain pass: 530 plain tokens a second, 1.1e11 FLOP/s in bfloat16
                (memory.json, stream.json)
    one core    10^9 x 2.2e9 / 1.1e11 = 2.0e7 s, 1.02 times that with experts captured (capture.json): 230 days
    a cluster   15,300 shards of 65,536 tokens, 22 minutes of a core each, which is what a killed worker loses;
                1,000 cores: 5.6 hours.  Each worker holds the model, 14 GB: a machine of 256 GB takes 16 of them
    a GPU       the same shape with random weights, 16,384 tokens at once: 72,700 plain tokens a second, 1.06 times that
                with everything counted: 10^9 x 1.06 / 72,700 = 1.5e4 s, 4.1 hours; 1.6e14 FLOP/s, 0.20 of the bfloat16
                product (the experts' products take a fifth of the time, masks, copies and weights around them half).
                From the text, cut into tokens beside the model: 56,700 a second, 4.9 hours.  With 2,048 tokens at once,
                the default, launching operations is the limit: 48,100 plain, 2.00 times that counted, 11.6 hours.
                13.8 GB of weights and 2.6 GB for the batch (gpu.json)
    memory      does not grow with the text: 1.04 times as much for 10 times the tokens (memory.json)
    disk        counts are under 1 MB a layer.  Every token's routes take 2.5 bytes a slot and 4.5 for its text (the
                run that ships): 16 x 8 x 2.5 + 4.5 = 325 bytes, 325 GB in all: keep them for a sample of the text

    Steps: `data.cluster`, then `stream.run(model, corpus, {"counts": RoutingCounts(model)}, config, engine="ray")`.

Coherence of 10^6 features in 768 dimensions (SAE latents)
    arithmetic  V^T V takes 2 F^2 d = 1.5e15 FLOP; the scan with all its bounds takes .60 of that time, half being the
                least because of symmetry (coherence.json: 11.1 s at F = 32,768, 9.1e10 FLOP/s in float32)
    one core    (10^6 / 32,768)^2 x 11.1 s = 1.0e4 s: 2.9 hours; d enters in proportion; a stopped scan goes on
    a GPU       28.0 s measured, 1.87 times the 15.0 s that F^2 d operations take at its rate (5.1e13 FLOP/s in
                float32, TF32 off), the matrix and 9.8 GB beside it on the card (gpu.json)
    memory      the matrix, 3.1 GB, mapped from a .npy file, and at most 3.2 kB a feature beside it: 3.2 GB (106 MB at
                F = 32,768, 97 at 65,536)

Neurons of SmolLM2-135M on the same GPU: 256,000 plain tokens a second at 16,384 tokens at once, 4.3 times that with
everything measured (from the text 39,800 a second; one core: 420).  Some 300 small operations a layer are added to 150,
and launching them is what takes the time: the GPU itself works 3.1 times as long, a third of that on counting sizes.
"""

from typing import TYPE_CHECKING, Any

from probes.registering import register_later

if TYPE_CHECKING:
    from probes.models import LanguageModel, ModelError, open_model

__all__ = ["LanguageModel", "ModelError", "open_model"]


def __getattr__(name: str) -> Any:
    """Names from `probes.models`, imported when first asked for: linear algebra needs no transformers."""
    if name in __all__:
        import probes.models

        return getattr(probes.models, name)
    raise AttributeError(f"module 'probes' has no attribute '{name}'")


register_later()
