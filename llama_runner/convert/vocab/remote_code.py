"""Tokenizers that llama.cpp's own script loads without code of the model: the classes of transformers 4.57.6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSES = """
    Albert Bart Barthez Bartpho BertGeneration BertJapanese Bert Bertweet BigBird BioGpt BlenderbotSmall Blenderbot
    Bloom ByT5 CLIP CTRL Camembert Canine Clvp CodeGen CodeLlama Cohere ConvBert CpmAnt Cpm DPRQuestionEncoder
    Deberta DebertaV2 Dia DistilBert Electra ErnieM Esm FNet FSMT Flaubert Funnel GPT2 GPTNeoXJapanese GPTNeoX
    GPTSanJapanese GPTSw3 Gemma Herbert Jukebox LED LayoutLM LayoutLMv2 LayoutLMv3 LayoutXLM Llama Longformer Luke
    Lxmert M2M100 MBart50 MBart MLuke MPNet MT5 Marian Mgpstr MobileBert Mvp MyT5 Nllb OpenAIGPT PLBart ParakeetCTC
    Pegasus Perceiver Phobert PreTrained ProphetNet Qwen2 Rag Realm Reformer RemBert RetriBert RoCBert RoFormer
    Roberta SeamlessM4T Siglip Speech2Text2 Speech2Text SpeechT5 Splinter SqueezeBert T5 Tapas Tapex TransfoXL Udop
    Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper XGLM XLMProphetNet XLMRoberta XLM XLNet
"""
CLASSES = frozenset(f"{name}Tokenizer" for name in _CLASSES.split()) | {"TokenizersBackend"}
"""Names without ``Fast``; the last one is given to the script under another name."""


def own_code(settings: Mapping[str, Any]) -> str | None:
    """Return the class in the model's own Python files that a tokenizer_config.json names, None if none is needed."""
    named, own = settings.get("tokenizer_class"), settings.get("auto_map")
    found = own.get("AutoTokenizer") if isinstance(own, dict) else own
    classes = [name for name in (found if isinstance(found, list) else [found]) if isinstance(name, str)]
    if not classes or not isinstance(named, str) or named.removesuffix("Fast") in CLASSES:
        return None
    return classes[0]
