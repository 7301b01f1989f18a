#!/usr/bin/env bash
# Serve a model: set up what is missing, then `llama-runner run` with the same options.
#
#   scripts/run_server.sh --demo
#   scripts/run_server.sh --safetensors-dir DIR --quantization q8_0
#   scripts/run_server.sh --gguf-path FILE --port 9000

set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
set_up run
# -I: the user may be in the directory of a model, and -m alone would look for modules there first
exec "$python" -I -m llama_runner.run_server "$@"
