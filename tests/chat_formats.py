"""Processors that speak the chat formats of four model families, with tokenizers of their kinds.

The templates are those of the published models; the vocabularies are learnt here from a few sentences.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from facegpt.model.tokens import add_face_token
from facegpt.standins.tiny_llava import TINY_RANDOM, build_processor, build_tokenizer

TEXTS = [
    "USER: What does the face look like? ASSISTANT: Here it is: it smiles.",
    "USER: Describe the hair of this person. ASSISTANT: The hair is short, dark and curly.",
    "system user assistant\nYou are a helpful AI assistant\n\n",
] * 3
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
    "trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN_PARTS = (  # content in parts, as llava-interleave-qwen writes it, with Qwen2-VL's name for an image
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}"
    "{% endfor %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAVA_15_PUBLISHED = (  # ends an answer with a space
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}"
    "{% endif %}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}"
    "{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}"
    "{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FORMATS = ("vicuna", "vicuna, spaces always", "smollm2", "llama3", "phi3", "qwen parts")


def chat_processor(name: str) -> LlavaProcessor:
    """A LLaVA processor of 4 image tokens whose language half is of family `name`, with `<FACE>`."""
    if name.startswith("vicuna") or name == "phi3":
        tokenizer: PreTrainedTokenizerBase = build_tokenizer(TEXTS, TINY_RANDOM.vocab_size)
        scheme = "always" if "always" in name else "first"
        space = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme, split=False)
        tokenizer.backend_tokenizer.pre_tokenizer = space
        if name == "phi3":
            turns = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
            tokenizer.add_tokens([AddedToken(turn, rstrip=True, special=True) for turn in turns])
    elif name == "llama3":
        turns = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        tokenizer = byte_level(LLAMA3_WORDS, "<|begin_of_text|>", "<|eot_id|>", turns)
        template = processors.TemplateProcessing(
            single="<|begin_of_text|> $A",
            special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)],
        )
        tokenizer.backend_tokenizer.post_processor = template
    elif name == "smollm2":  # its start token opens every turn, and its end token pads
        tokenizer = byte_level(GPT2_WORDS, "<|im_start|>", "<|im_end|>", ["<|endoftext|>"])
    else:
        turns = ["<|im_start|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>"]
        tokenizer = byte_level(LLAMA3_WORDS, None, "<|im_end|>", turns)
    image = "<|image_pad|>" if name == "qwen parts" else "<image>"
    tokenizer.add_tokens([AddedToken(image, special=True, normalized=False)])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    add_face_token(tokenizer, 1000)
    processor = build_processor(tokenizer, TINY_RANDOM)
    processor.image_token, processor.image_token_id = image, tokenizer.convert_tokens_to_ids(image)
    templates = {"smollm2": SMOLLM2, "llama3": LLAMA3, "phi3": PHI3, "qwen parts": QWEN_PARTS}
    processor.chat_template = templates.get(name, processor.chat_template)
    return processor


def byte_level(
    words: str, begin: str | None, end: str, others: list[str], vocabulary: int = 420
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as GPT-2's descendants have: no space before a text, line breaks merge."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, bos_token=begin, eos_token=end)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in others])
    return tokenizer
