#!/bin/bash
set -e
export FOO=1
CUDA_VISIBLE_DEVICES=0 LLAMA_ARG_CTX_SIZE=2048 nohup nice -n 5 ./build/bin/llama-server \
  -hf unsloth/Qwen3-8B-GGUF:Q4_K_M --port 9000 --host 0.0.0.0 \
  # why not
  -ngl -1 -t 8 --chat-template-kwargs '{"enable_thinking": false}' --draft-max 8
docker run -itd -p 9001:8080 --gpus all -v ~/m:/models -e LLAMA_ARG_MODEL=/models/a.gguf ghcr.io/ggml-org/llama.cpp:server
